"""Names for arms, forecasters and datasets, and references to those that users bring.

A reference is a registered name (`pixelcnn`), an importable attribute (`package.module:attr`) or an attribute
of a file (`my_arm.py:CausalTransformer`). Entries are strings until they are asked for, so a list of the valid
names costs no import. This module knows no torch and must never import what it names.
"""

import ast
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from arm_core.errors import InputError

PLUGIN_PREFIX = "_arm_plugin_"
"""What the module names of files that users bring start with."""


def suggest(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """The error for an unknown name: the nearest valid one and the list of them all. Raise what it returns."""
    names = sorted(valid)
    folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
    return InputError(
        f"unknown {kind} {name!r}.{hint} Valid: {', '.join(repr(name) if ',' in name else name for name in names)}."
    )


@dataclass(frozen=True)
class Registry:
    """What a kind of component is called, and where it lives (`name -> "module:attr"`).

    Attributes:
        kind: of component.
        entries: name -> `module:attr`.
        schemes: the same for what a path follows, as in `npz:PATH`.
    """

    kind: str
    entries: dict[str, str]
    schemes: dict[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self.entries)

    def split(self, ref: str) -> tuple[str | None, str]:
        """(scheme, path) of a reference such as `npz:PATH`; (None, the reference) of every other."""
        scheme, colon, path = ref.partition(":")
        return (scheme, os.path.expanduser(path)) if colon and scheme in self.schemes else (None, ref)

    def resolve(self, ref: str) -> Any:
        """Import what `ref` stands for.

        Args:
            ref: a registered name, a scheme and a path, `module:attr`, or `file.py:attr` (relative to the working
                directory).

        Raises:
            InputError: the name is unknown, or the file, module or attribute does not exist.
        """
        scheme, _ = self.split(ref)
        target = self.schemes[scheme] if scheme is not None else self.entries.get(ref, ref)
        module_name, colon, attribute = target.rpartition(":")
        if not colon and ref.endswith(".py"):
            raise InputError(f"{self.kind} {ref!r} is a file; name what is meant in it too: {ref}:NAME")
        if not colon or not (module_name.endswith(".py") or all(map(str.isidentifier, module_name.split(".")))):
            if "folder" in self.schemes and Path(ref).expanduser().is_dir():
                raise InputError(f"{self.kind} {ref!r} is a folder; of images it is written folder:{ref}")
            paths = [f"{name}:PATH" for name in self.schemes]
            raise suggest(self.kind, ref, [*self.entries, *paths, "module:attr", "file.py:attr"])
        module = (
            _load_file(self.kind, module_name) if module_name.endswith(".py") else _load_module(self.kind, module_name)
        )
        try:
            return getattr(module, attribute)
        except AttributeError:
            public = {name: part for name, part in vars(module).items() if not name.startswith("_")}
            own = [name for name, part in public.items() if getattr(part, "__module__", "") == module.__name__]
            raise suggest(f"{self.kind} in {module_name}", attribute, own or public) from None


def config_type(component: Any) -> type | None:
    """The type of a component's configuration: the annotation of `config` in the `__init__` of its class.

    None for a function, and for a class without that parameter.
    """
    if not inspect.isclass(component):
        return None
    return inspect.get_annotations(component.__init__, eval_str=True).get("config")


def _load_module(kind: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise  # the module exists; something that it imports does not
        raise InputError(f"{kind} module {name!r} is not installed; give file.py:attr for a file of your own") from None


def _load_file(kind: str, path: str) -> ModuleType:
    if "\0" in path or not (file := Path(path).expanduser().resolve()).is_file():
        raise InputError(f"{kind} file {path!r} does not exist (looked for in {Path.cwd()})")
    name = f"{PLUGIN_PREFIX}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    neighbours = beside(file)
    if neighbours and str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    sys.modules[name] = module  # before running it: dataclasses look their module up while they are made
    try:
        spec.loader.exec_module(module)
        for meant in neighbours:
            top = meant.parent.name if meant.stem == "__init__" else meant.stem
            found = getattr(sys.modules.get(top), "__file__", None)
            is_top = meant.parent == file.parent or (top, file.parent) == (meant.parent.name, meant.parent.parent)
            if is_top and found is not None and not meant.samefile(found):
                raise InputError(f"{file} imports {top}, which is {found}, not {meant} beside it; rename that one")
    except BaseException:
        del sys.modules[name]
        raise
    return module


def beside(file: Path) -> list[Path]:
    """The files in the folder of a plug-in that it imports, and those that they import, sorted."""
    found, waiting = set[Path](), [file]
    while waiting:
        try:
            tree = ast.parse((one := waiting.pop()).read_bytes())
        except (SyntaxError, ValueError):  # running it says so better
            continue
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for top in {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, "arm_core", "harness"}:
                places = (file.parent / f"{top}.py", *(file.parent / top).rglob("*.py"))
                new = {place for place in places if place.is_file() and place != one} - found - {file}
                found |= new
                waiting += new
    return sorted(found)


ARMS = Registry(
    "arm",
    {
        "pixelcnn": "arm_core.arms.pixelcnn.network:PixelCNN",
        "transformers": "arm_core.arms.transformers.decoder:TransformersDecoder",
    },
)

FORECASTERS = Registry(
    "forecaster",
    {
        "zeros": "arm_core.forecasters.baselines:zeros",
        "predict_last": "arm_core.forecasters.baselines:predict_last",
        "row_above": "arm_core.forecasters.baselines:row_above",
        "fixed_point": "arm_core.fixed_point:fixed_point",
        "fixed_point_above": "arm_core.fixed_point:fixed_point_above",
        "most_likely": "arm_core.fixed_point:most_likely",
        "learned": "arm_core.forecasters.learned:LearnedForecaster",
        "gated": "arm_core.forecasters.learned:GatedForecaster",
    },
)

DATASETS = Registry(
    "dataset",
    {
        "mnist5k": "arm_core.data.mnist5k:MNIST5k",
        "digits": "arm_core.data.digits:Digits",
        "photo_patches": "arm_core.data.photo_patches:PhotoPatches",
        "mnist": "arm_core.data.mnist:MNIST",
        "fashion_mnist": "arm_core.data.fashion_mnist:FashionMNIST",
        "cifar10": "arm_core.data.cifar10:CIFAR10",
        "svhn": "arm_core.data.svhn:SVHN",
        "svhn_extra": "arm_core.data.svhn:SVHNExtra",
        "imagenet32": "arm_core.data.imagenet32:ImageNet32",
        "imagenet32_new": "arm_core.data.imagenet32_new:ImageNet32New",
    },
    {"npz": "arm_core.data.arrays:ArrayFile", "folder": "arm_core.data.folder:ImageFolder"},
)
