"""What Hydra and OmegaConf complain about, in one short message with the remedy.

Each kind of complaint has a function of their text, and of the settings of the command that was run; it gives None
where the text is about something else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from src import config as schema

CONF = Path(__file__).parents[1] / "conf"
REPLACED = tuple(f.name for f in fields(schema.Replacement))
NODES = {  # what the options of a config group can set
    "data": (schema.DataConfig, schema.SyntheticConfig),
    "model": (schema.PooledConfig, schema.NopoolConfig, schema.HierConfig),
    "likelihood": (schema.GaussianConfig, schema.PoissonLognormalConfig, schema.PoissonConfig),
    "prior": (schema.PriorConfig,),
    "sampler": (schema.SamplerConfig,),
    "engine": (schema.LocalConfig, schema.DaskConfig),
    "generator": (schema.GeneratorConfig, schema.CountiesConfig),
}
LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm")  # of the extra [sweep]
NOISE = ("full_key:", "object_type=", "reference_type=")
WRONG_VALUES = {  # what OmegaConf says of a value, and what we say instead
    r"could not be converted to Integer": "is not a whole number; write digits only",
    r"could not be converted to Float": "is not a number; write one such as 0.9",
    r"is not a valid bool": "is neither true nor false; write one of them",
    r"is not a ListConfig|Cannot merge DictConfig with ListConfig": "is not a list; give one as in '{name}=[a, b]'",
    r"NoneType is not a subclass of str": "has an empty entry; take it out",
    r"is not Optional": "cannot be empty; leave the setting out or give a value ([] for an empty list)",
    r"Cannot convert '\w+' to string": "is not a single word; give one as in {name}=a",
    r"Incompatible key type": "is not a dictionary of columns; give one as in '{name}={{a: b}}'",
    r"does not support deletion": "is no way to remove a setting; give it another value",
}


def in_words(error: Exception, settings: type) -> str:
    """What Hydra or OmegaConf complains about, in one short message with the remedy.

    Parameters
    ----------
    error : Exception
    settings : type
        Dataclass of the settings of the command that was run, for hints at what it can be told.
    """
    text = f"{error}\n{error.__cause__ or ''}"
    for explain in (unknown_setting, missing_extra, unknown_option, absent_setting, wrong_value, wrong_syntax):
        if said := explain(text, settings):
            return said
    lines = [line.strip() for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith(NOISE)))


def unknown_setting(text: str, settings: type) -> str | None:
    """A name that no setting has."""
    found = re.search(r"Could not override '([\w./]+)'", text)
    if found is None:
        return None
    name = found.group(1)
    whole, _, entry = name.rpartition(".")
    if whole.removeprefix("data.") in REPLACED:
        return f"{whole} has no {entry} to change; give the whole dictionary, as in '{whole}={{{entry}: my_column}}'"
    return no_setting(name, settings)


def no_setting(name: str, settings: type) -> str:
    """Say that there is no such setting, with the closest that there is."""
    word = name.rpartition(".")[2]
    homes = [("", settings), *((f"{group}.", node) for group in groups_of(settings) for node in NODES[group])]
    known = {f.name for _, node in homes for f in fields(node)}
    elsewhere = [f"{home}{f.name}" for home, node in homes for f in fields(node) if f.name == word]
    others = [place for place in elsewhere if place != name]
    hint = f" (did you mean {others[0]}?)" if others else "" if word in known else closest(word, known)
    return f"there is no setting {name} here{hint}; see --help"


def groups_of(settings: type) -> list[str]:
    """Config groups that a command has, in the order of its settings."""
    return [f.name for f in fields(settings) if f.name in NODES]


def missing_extra(text: str, settings: type) -> str | None:
    """A launcher of sweeps that is not installed, or that there is none of that name."""
    found = re.search(r"Could not find 'hydra/launcher/([^'\n]*)'", text)
    if found is None:
        return None
    launcher = found.group(1)
    if launcher in LAUNCHERS:
        return f"hydra/launcher={launcher} needs the extra [sweep]: install it with pip install '.[sweep]'"
    known = ("basic", *LAUNCHERS)
    return f"hydra/launcher={launcher} is not an option{closest(launcher, known)}; choose from {', '.join(known)}"


def unknown_option(text: str, settings: type) -> str | None:
    """A config group without that option."""
    found = re.search(r"Could not find '(\w+)/([^'\n]*)'", text)
    if found is None:
        return None
    group, option = found.groups()
    options = options_of(group)
    return f"{group}={option} is not an option{closest(option, options)}; choose from {', '.join(options)}"


def options_of(group: str) -> list[str]:
    """Options of a config group, sorted."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def absent_setting(text: str, settings: type) -> str | None:
    """A setting that has no default and was not given."""
    found = re.search(r"missing mandatory value: (\w+)", text)
    if found is None:
        return None
    word = found.group(1)
    return f"data.{word} is not given: say which column of the file it is, as in data.{word}=my_column"


def wrong_value(text: str, settings: type) -> str | None:
    """A value that the setting cannot take."""
    found = re.search(r"Error merging override ([+~]*)([\w./]+)([^\n]*)", text)
    if found is None:
        return None
    mark, name, value = found.groups()
    name = re.sub(r"^replace\.", "data.", name)
    for pattern, words in WRONG_VALUES.items():
        if re.search(pattern, text):
            return f"{mark}{name}{value} {words.format(name=name)}"
    return None


def wrong_syntax(text: str, settings: type) -> str | None:
    """Something that is not name=value in Hydra's grammar."""
    if "Config group override must be a string" in text:
        *others, last = groups_of(settings)
        return f"{', '.join(others)} and {last} take the name of an option, not null; see --help"
    if found := re.search(r"Ambiguous value for argument '([^=\n]+)=([^\n]*)'", text):
        name, value = found.groups()
        return (
            f"{name}={value} has a comma: write a list as '{name}=[{value}]', and a name with a comma in it as "
            f"'{name}=\"{value}\"'; to run one after the other, add -m"
        )
    if found := re.search(r"Error parsing override '([^=\n]*)'\s+missing EQUAL", text):
        word = found.group(1)
        groups = [*groups_of(settings), *(["experiment"] if settings is schema.Config else [])]
        meant = next((f" (did you mean {group}={word}?)" for group in groups if word in options_of(group)), "")
        return f"{word} is not a setting{meant}; write name=value without blanks, as in seed=1"
    if found := re.search(r"Error parsing override '([^\n]*)'|(?:at|mismatched|extraneous) input '([^\n]*)'", text):
        unread = found.group(1) or found.group(2)
        return (
            f"{unread} cannot be read: close every bracket, quote the whole for the shell as in 'data.groups={{a: b}}' "
            "and a name with brackets or quotes in it once more, as in 'data.outcome=\"log(y)\"'"
        )
    return None


def closest(word: str, known: Iterable[str]) -> str:
    """A hint at the closest known word, empty where none is close."""
    close = difflib.get_close_matches(word, [k for k in known if k != word], n=1)
    return f" (did you mean {close[0]}?)" if close else ""
