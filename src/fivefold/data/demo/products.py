"""Short product titles with retailer and price, a tree of three levels and an independent brand."""

from __future__ import annotations

from typing import Any

import numpy as np

from fivefold.data.demo.wording import choose, mistype, vocabulary

# supergroup: group: module = nouns of its titles. Nouns recur across modules, so that titles alone are ambiguous.
CATALOGUE = """
Food: Snacks: Crisps=crisps,chips,tortilla|Biscuits=biscuits,cookies,wafers|Nuts=almonds,cashews,mixed nuts
Food: Breakfast: Cereal=flakes,granola,oats|Spreads=jam,honey,peanut butter|Pancake Mix=pancake mix,waffle mix
Food: Pantry: Cooking Oil=olive oil,sunflower oil,oil spray|Pasta=spaghetti,penne,noodles|Sauce=tomato sauce,dip,salsa
Food: Confectionery: Chocolate=chocolate,truffles,cocoa bar|Sweets=gums,drops,caramels
Drinks: Hot Drinks: Coffee=coffee,espresso,coffee pods|Tea=green tea,tea bags,herbal tea|Cocoa=cocoa,drinking chocolate
Drinks: Soft Drinks: Juice=orange juice,apple juice,nectar|Soda=cola,lemonade,tonic|Water=sparkling water,spring water
Drinks: Dairy Drinks: Milk=milk,oat milk,almond milk|Shakes=protein shake,milkshake
Beauty: Hair Care: Shampoo=shampoo,hair wash|Hair Oil=hair oil,serum,argan oil|Styling=hair gel,spray,wax
Beauty: Skin Care: Face Cream=day cream,serum,night cream|Body Lotion=body lotion,body oil|Soap=soap,hand wash
Beauty: Make-up: Lips=lipstick,lip gloss,lip balm|Eyes=mascara,eye liner
Household: Cleaning: Surface=spray,wipes,cream cleaner|Dishes=dish tabs,dish liquid|Floor=floor polish,floor wax
Household: Laundry: Detergent=washing powder,liquid detergent,pods|Softener=softener,scent drops
Household: Paper: Tissue=tissues,kitchen roll|Bags=bin bags,freezer bags
Pets: Dogs: Dog Food=dry food,chunks in gravy,kibble|Dog Treats=chew sticks,biscuits,training bites
Pets: Cats: Cat Food=dry food,pate,tuna chunks|Cat Litter=clay litter,litter
Pets: Small Animals: Rodent Food=pellets,muesli mix|Bedding=straw,wood bedding
Baby: Feeding: Baby Food=fruit puree,cereal,porridge|Formula=milk powder,formula|Bottles=bottle,teat set
Baby: Care: Nappies=nappies,pants size|Baby Wipes=wipes,sensitive wipes|Baby Lotion=baby lotion,baby oil
Baby: Toys: Soft Toys=teddy,rattle|Bath Toys=bath duck,bath boat
Home: Kitchen: Cookware=frying pan,pot,wok|Storage=lunch box,jar,bottle|Utensils=whisk,ladle,peeler
Home: Textiles: Towels=hand towel,bath towel|Bedding Sets=duvet set,pillow case|Cushions=cushion,seat pad
Home: Lighting: Bulbs=led bulb,spot bulb|Lamps=desk lamp,night light
Garden: Plants: Seeds=tomato seeds,lawn seeds,herb mix|Soil=potting soil,compost
Garden: Tools: Hand Tools=trowel,rake,secateurs|Watering=hose,watering can,spray bottle
Garden: Outdoor: Barbecue=charcoal,grill tray,fire lighters|Furniture=folding chair,table
"""
RETAILERS = ("Northmart", "Daily Basket", "Corner & Co", "Value Hall", "Greenway", "Shopline", "Metro Cash", "Online")
FLAVOURS = vocabulary("classic original lemon vanilla sensitive extra light family fresh organic premium natural soft")
SIZES = vocabulary("200g 400g 1kg 500ml 750ml 2x100g 6pk 12pk 30s xl 3pc 1l")
NOUNS_TO_SHARE = ("assorted", "gift set", "special offer", "multipack")

LABELS = ("supergroup", "group", "module", "brand")
BRANDS = 80
NAMED_BRAND = 0.68
VAGUE = 0.04
REPEATED = 0.08
NOISE = 0.02


def products(rows: int, generator: np.random.Generator) -> dict[str, list[Any]]:
    """Columns title, price, retailer and the labels of `rows` rows."""
    modules, brands = _modules(), brand_names()
    odds = 1 / np.arange(1, BRANDS + 1)
    drawn = generator.choice(BRANDS, size=rows, p=odds / odds.sum())
    popular = generator.permuted(np.arange(len(modules)) % 7 + 1) * 1.0
    chosen = generator.choice(len(modules), size=rows, p=popular / popular.sum())
    table: list[tuple[Any, ...]] = []
    for row in range(rows):
        if table and generator.random() < REPEATED:
            table.append(_near_duplicate(generator, choose(generator, table)))
        else:
            table.append(_product(generator, modules[chosen[row]], brands[drawn[row]], len(modules)))
    columns = ("title", "price", "retailer", *LABELS)
    return {name: list(values) for name, values in zip(columns, zip(*table, strict=True), strict=True)}


def brand_names() -> list[str]:
    """Made-up brands, the most frequent first; the same for every seed."""
    generator = np.random.default_rng(BRANDS)
    starts, ends = vocabulary("Ka Lo Mi Ve Sa Tu Ori Be Zan Fe"), vocabulary("ra lino vita mel dor nex pura ston")
    names = [start + end for start in starts for end in ends]
    return [names[i] for i in generator.permutation(len(names))]


def _modules() -> list[tuple[str, str, str, list[str]]]:
    found = []
    for line in CATALOGUE.strip().splitlines():
        supergroup, group, modules = line.split(": ")
        for module in modules.split("|"):
            name, nouns = module.split("=")
            found.append((supergroup, group, name, nouns.split(",")))
    return found


def _product(
    generator: np.random.Generator, module: tuple[str, str, str, list[str]], brand: str, modules: int
) -> tuple[Any, ...]:
    supergroup, group, name, nouns = module
    noun = choose(generator, NOUNS_TO_SHARE if generator.random() < VAGUE else nouns)
    words = [choose(generator, FLAVOURS), *noun.split(), choose(generator, SIZES)]
    if generator.random() < NAMED_BRAND:
        words.insert(0, brand.lower())
    words = [_shorten(generator, word) for word in words]
    # A retailer's own brand is named less often and sells mostly there.
    home = RETAILERS[sum(map(ord, brand)) % len(RETAILERS)]
    retailer = home if generator.random() < 0.4 else choose(generator, RETAILERS)
    price = round(float(np.exp(generator.normal(0.6 + len(supergroup) / 8, 0.5))), 2)
    labelled = choose(generator, brand_names()) if generator.random() < NOISE else brand
    return " ".join(words), price, retailer, supergroup, group, name, labelled


def _shorten(generator: np.random.Generator, word: str) -> str:
    draw = generator.random()
    if draw < 0.1:
        return word[:4]
    return mistype(generator, word) if draw < 0.14 else word


def _near_duplicate(generator: np.random.Generator, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same product once more: another size, case or order of words, perhaps another shop."""
    title, price, _, *labels = row
    words = title.split()
    edits = (title.upper(), " ".join([*words[:-1], choose(generator, SIZES)]), " ".join([words[-1], *words[:-1]]))
    return choose(generator, edits), price, choose(generator, RETAILERS), *labels
