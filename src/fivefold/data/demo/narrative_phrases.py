"""The wording of the accident reports: findings, places, causes and boilerplate."""

from __future__ import annotations

# Finding: how often it is there, and phrases for it. Phrases of neighbouring findings share words on purpose.
FINDINGS: dict[str, tuple[float, tuple[str, ...]]] = {
    "ladder": (0.12, ("a ladder", "a folding ladder at the scene", "an unsecured ladder", "use of a step stool")),
    "wet_surface": (0.25, ("a wet surface", "water on the floor", "a slippery floor", "spilled liquid nearby")),
    "poor_lighting": (0.18, ("poor lighting", "a broken lamp", "darkness at the scene", "a dim hallway")),
    "vehicle": (0.2, ("a vehicle", "a parked car", "a delivery van", "a car at the scene")),
    "bicycle": (0.1, ("a bicycle", "a damaged bike", "a rental bike nearby", "a cycle helmet")),
    "animal": (0.07, ("a dog", "an unleashed animal", "a pet at the scene", "a horse nearby")),
    "machinery": (0.14, ("machinery", "a power tool", "a running machine", "a damaged tool")),
    "electrical_fault": (0.06, ("an electrical fault", "a damaged cable", "exposed wiring", "a broken outlet")),
    "hot_surface": (0.08, ("a hot surface", "hot liquid nearby", "steam", "a stove left on")),
    "chemical": (0.06, ("a chemical", "a cleaning liquid", "solvent on the floor", "an unlabelled bottle")),
    "sport": (0.15, ("a sports activity", "a training session", "a match that day", "team practice")),
    "no_protection": (0.3, ("missing protective gear", "a missing helmet", "missing gloves", "no guard on the tool")),
    "witness": (0.45, ("a witness", "a neighbour who saw it", "a coworker who saw it", "a bystander's account")),
    "alone": (0.35, ("being alone", "nobody else in the building", "working alone", "living alone")),
    "alcohol": (0.18, ("alcohol", "an open bottle of beer", "drinks earlier that day", "a smell of alcohol")),
    "fatigue": (0.22, ("fatigue", "lack of sleep", "a long shift that day", "tiredness")),
    "phone_use": (0.12, ("phone use", "a phone in hand", "texting at the time", "a phone call at the time")),
    "earlier_injury": (0.2, ("an earlier injury", "an old fracture", "a previous fall", "an old knee problem")),
    "medication": (0.28, ("medication", "a prescription", "pain tablets", "a bottle of tablets")),
    "hurry": (0.16, ("being in a hurry", "running late", "rushing that day", "a tight schedule")),
    "taken_to_hospital": (0.5, ("transport to hospital", "an ambulance", "admission to a ward", "emergency treatment")),
}
PLACES = {
    "home": ("at home", "in the kitchen of the residence", "in the garden shed", "on the stairs of the building"),
    "street": ("on the street", "at a crossing", "on the pavement by the station", "in a parking lot"),
    "workplace": ("at work", "in a warehouse", "on a building site", "in the kitchen of a restaurant"),
    "school": ("at school", "in a gym hall", "on the stairs of the school", "in the school yard"),
    "sports_ground": ("on a sports ground", "in a gym", "at the stadium", "on a running track"),
    "outdoors": ("in the woods", "on a hiking trail", "by the lake", "on a farm track"),
}
CAUSES = {
    "slip": ("slipped", "lost footing on the floor", "slid and went down"),
    "trip": ("tripped", "caught a foot and went down", "stumbled over a step"),
    "fall_from_height": ("fell from a height", "came down from the upper level", "lost footing and fell about 2 m"),
    "struck_by_object": ("was struck by a falling object", "was hit by a box", "was hit on the shoulder"),
    "collision": ("collided with another person", "was hit at the corner", "ran into a post"),
    "overexertion": ("strained the back while lifting", "lifted a heavy box", "overreached and felt a pull"),
    "cut": ("was cut on a sharp edge", "injured a hand on glass", "caught a hand on an edge"),
    "burn": ("was burned on the arm", "touched a hot pan", "injured a hand with steam"),
    "caught_between": ("caught a hand in a door", "was caught between two carts", "got a sleeve caught"),
    "sting_or_bite": ("was stung", "was bitten on the hand", "reacted to an insect"),
    "swallowed": ("swallowed a small object", "drank from the wrong bottle", "choked on food briefly"),
    "electric_shock": ("felt an electric shock", "touched a live wire", "was found beside a tripped fuse"),
}
NOTES_LE = (
    "Officers noted {0}.",
    "The family mentioned {0}.",
    "A report of {0} was taken at the scene.",
    "Witness statements refer to {0}.",
    "According to a friend there was {0}.",
    "{0} is documented in the photographs.",
)
DENIALS_LE = (
    "Officers found no sign of {0}.",
    "The family did not mention {0}.",
    "A friend was asked about {0} and denied it.",
    "It is unknown whether there was {0}.",
)
NOTES_ME = (
    "History is significant for {0}.",
    "Records mention {0}.",
    "The chart lists {0} as contributing.",
    "Per the attending physician there was {0}.",
    "Findings are consistent with {0}.",
)
DENIALS_ME = (
    "Records give no indication of {0}.",
    "The chart was reviewed for {0}, with negative result.",
    "The history is silent about {0}.",
)
FILLERS_LE = (
    "Units were dispatched shortly after noon and arrived within ten minutes of the call.",
    "The area was secured and photographs were taken from several positions.",
    "V's partner was informed by phone and came to the scene later that day.",
    "A friend stated that V had seemed well in the morning and had plans for the evening.",
    "The weather was overcast and the temperature was mild for the season.",
    "Personal items were collected and listed, and later handed over to the family.",
    "The door was closed but not locked when the first officer arrived.",
    "A second unit spoke to people in the building, who had heard a noise.",
    "V was described as careful and familiar with the place.",
    "The report was completed the same evening and signed by both officers.",
    "A coworker stated that V had been with the company for several years.",
    "Nothing else out of the ordinary was seen and the scene was cleared at 1640 hours.",
    "The manager of the building was told to have the spot checked before it is used again.",
    "V's bag, keys and a jacket were found a few steps away.",
)
FILLERS_ME = (
    "The examination was performed the following morning in the presence of an assistant.",
    "General condition is that of a person who looks the stated age, well nourished.",
    "Heart and lungs are without findings of note, and abdominal organs are unremarkable.",
    "A superficial abrasion is seen on the left forearm, with a bruise at the elbow.",
    "Laboratory samples were taken and sent out; results were pending at the time of writing.",
    "The clothing was dry, complete and consistent with the season.",
    "Radiographs of the wrist and the shoulder were obtained and reviewed.",
    "The manner is accidental on the basis of the information available.",
    "Past records were requested from the family physician and arrived two days later.",
    "There is mild swelling of the right knee without further change.",
    "The investigator's report was read and compared with the findings.",
    "Measurements and photographs are kept with the file.",
    "An addendum will be written if further information becomes available.",
    "The findings were discussed with the family by telephone.",
)
