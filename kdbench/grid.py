"""A grid file to a validated ``Grid``: YAML in, every mistake told in one message.

Nothing here imports torch: methods are described from their source, models from a table of names.
``expand`` in expand.py turns the grid into runs.
"""

import difflib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from kdbench import models, registry
from kdbench.errors import UserError
from kdbench.spec import OPTIONS, Dataset, MethodOptions, Protocol, Strict

ROOT = Path(__file__).parent.parent
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Seed = Annotated[int, Field(ge=0)]
Model = TypeVar("Model", bound=BaseModel)


class GridError(UserError):
    """All that is wrong with a grid, one line each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class Pair(Strict):
    """Teacher and student architecture; ``lr`` replaces the protocol's for this student."""

    teacher: str
    student: str
    lr: Annotated[float, Field(gt=0)] | None = None


class TeacherSpec(Strict):
    """How the teachers are trained where that differs from the students.

    Attributes:
        seed: of the teachers' own training; all students of a pair share one teacher.
        dataset: what they are trained on; None: the grid's.
        protocol: how; None: the grid's.
    """

    seed: Seed = 0
    dataset: Dataset | None = None
    protocol: Protocol | None = None


class Executor(Strict):
    """Where and how runs are trained; nothing of it moves a number, but for ``threads``.

    Attributes:
        kind: debug: in this process; local: workers on this machine; auto: local.
        workers: processes at once; None: one a GPU, else one a core.
        threads: of a worker on a CPU. Sums are split among threads: another number of threads
            may round differently, so it is kept in every record.
        cohort: most learners that share a teacher's forward.
        checkpoint_seconds: time between checkpoints, the most a kill can cost.
        device: auto, cpu, cuda or cuda:N.
        tensorboard: leave curves for TensorBoard in the runs' folders.
    """

    kind: Literal["auto", "local", "debug"] = "auto"
    workers: Annotated[int, Field(gt=0)] | None = None
    threads: Annotated[int, Field(gt=0)] = 1
    cohort: Annotated[int, Field(gt=0)] = 16
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    tensorboard: bool = False


class Report(Strict):
    """What a leaderboard compares with.

    Attributes:
        reference: "PAPER/TABLE" of the published figures to show beside ours.
        ari_of: the method whose average relative improvement over the others is shown.
        baseline: the method that differences are taken to.
        supports, against: what the results support and what they do not, said at the top.
    """

    reference: str | None = None
    ari_of: str | None = None
    baseline: str = "kd"
    supports: str = ""
    against: str = ""


class Row(Strict):
    """One entry of ``methods``: names joined by ``+``, with their options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class Grid(Strict):
    """A grid of experiments, resolved.

    Attributes:
        name: of the folder in ``results/``. title: of the leaderboard.
        source: the grid file, for messages.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    dataset: Dataset
    protocol: Protocol
    seeds: tuple[Seed, ...] = Field(min_length=1)
    pairs: tuple[Pair, ...] = Field(min_length=1)
    methods: tuple[Row, ...] = ()
    sweep: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    teacher: TeacherSpec = TeacherSpec()
    teachers: dict[str, str] = Field(default_factory=dict)
    executor: Executor = Executor()
    report: Report = Report()
    source: str = "grid"


def presets() -> list[str]:
    """Names of the protocols that ship with kdbench."""
    files = resources.files("kdbench.presets").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def load(path: Path, overrides: Iterable[str] = ()) -> Grid:
    """Read a grid file.

    Args:
        path: YAML file.
        overrides: ``key=value`` with dots between keys, e.g. ``protocol.epochs=2``; values are
            YAML.

    Raises:
        GridError: what is wrong, all of it, one line each.
    """
    tree = _extended(path, ())
    for override in overrides:
        set_value(tree, override)
    return parse(tree, source=str(path), base=path.parent)


def parse(tree: dict[str, Any], *, source: str, base: Path = Path()) -> Grid:
    """A grid from plain values; ``base`` is the folder relative plugin paths start from."""
    errors: list[str] = []
    tree = dict(tree)
    for key in sorted(set(tree) - set(Grid.model_fields) | ({"source"} & set(tree))):
        errors.append(f"{key}: {unknown(key, set(Grid.model_fields) - {'source'})}")
        del tree[key]
    tree.setdefault("title", tree.get("name", ""))
    tree["dataset"] = _dataset(tree.get("dataset"), "dataset", errors, base)
    tree["protocol"] = _protocol(tree.get("protocol"), "protocol", errors)
    if isinstance(tree.get("teacher"), dict):
        spec = tree["teacher"] = dict(tree["teacher"])
        if "dataset" in spec:
            spec["dataset"] = _dataset(spec["dataset"], "teacher.dataset", errors, base)
        if "protocol" in spec:
            spec["protocol"] = _protocol(spec["protocol"], "teacher.protocol", errors)
    tree["pairs"] = [_pair(pair) for pair in _list(tree, "pairs", errors)]
    tree["methods"] = [
        _row(row, base, f"methods.{i}", errors) for i, row in enumerate(_list(tree, "methods", []))
    ]
    grid = _validated(Grid, tree | {"source": source}, "", errors)
    if grid is not None:
        _check_names(grid, errors)
    if errors or grid is None:
        raise GridError([f"{source}: {line}" for line in errors])
    return grid


def unknown(name: object, accepted: Iterable[str]) -> str:
    """``unknown; accepted: ... (did you mean ...?)``."""
    accepted = sorted(accepted)
    near = difflib.get_close_matches(str(name), accepted, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown; accepted: {', '.join(accepted)}{hint}"


def _extended(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The file's tree over that of the file it ``extends``: mappings merge, the rest replaces."""
    if path.resolve() in seen:
        raise GridError([f"{path}: extends itself"])
    try:
        tree = yaml.load(path.read_text(), Loader)
    except FileNotFoundError:
        raise GridError([f"{path}: no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise GridError([f"{path}: cannot be read: {error}"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise GridError([f"{where}: not YAML: {getattr(error, 'problem', error)}"]) from None
    if not isinstance(tree, dict):
        raise GridError([f"{path}: a grid is a mapping of keys to values"])
    other = tree.pop("extends", None)
    if other is None:
        return tree
    found = [folder / str(other) for folder in (path.parent, ROOT, Path())]
    target = next((file for file in found if file.is_file()), None)
    if target is None:
        raise GridError([f"{path}: extends: {other}: no such file beside it or in {ROOT}"])
    return merged(_extended(target, (*seen, path.resolve())), tree)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``: mappings key by key, everything else, lists too, as a whole."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        out[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return out


def set_value(tree: dict[str, Any], assignment: str, flag: str = "--set") -> None:
    """Put the value of ``key.key=value`` into a tree.

    Raises:
        GridError: it has no such form, or the value is not YAML.
    """
    key, equals, text = assignment.partition("=")
    *parents, last = key.strip().split(".")
    try:
        value = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", error)
        raise GridError([f"{flag} {assignment}: not YAML: {problem}"]) from None
    if not equals or not last:
        raise GridError([f"{flag} {assignment}: expected KEY=VALUE, e.g. protocol.epochs=2"])
    node = tree
    for parent in parents:
        child = node.get(parent)
        if isinstance(child, str):  # the short forms: dataset: digits, protocol: semckd
            child = {"preset" if parent == "protocol" else "name": child}
        node[parent] = child = dict(child) if isinstance(child, dict) else {}
        node = child
    node[last] = value


def _list(tree: dict[str, Any], key: str, errors: list[str]) -> list[Any]:
    value = tree.get(key) or []
    if isinstance(value, list):
        return value
    errors.append(f"{key}: {value!r} is not a list")
    return []


def _dataset(value: Any, where: str, errors: list[str], base: Path) -> Any:
    values = {"name": value} if isinstance(value, str) else value
    if values is None:
        errors.append(f"{where}: missing")
        return Dataset.model_construct(name="synthetic")
    if isinstance(values, dict) and isinstance(values.get("root"), str):
        root = Path(values["root"]).expanduser()
        near = base / root
        values = values | {"root": str(near if near.exists() else root)}
    return _validated(Dataset, values, where, errors) or Dataset(name="synthetic")


def _protocol(value: Any, where: str, errors: list[str]) -> Protocol:
    values = {"preset": value} if isinstance(value, str) else value
    if not isinstance(values, dict):
        errors.append(f"{where}: missing; presets: {', '.join(presets())}, or write one out")
        return Protocol()
    values = dict(values)
    preset = values.pop("preset", None)
    if preset is not None:
        if preset not in presets():
            errors.append(f"{where}.preset: {preset}: {unknown(preset, presets())}")
            return Protocol()
        text = resources.files("kdbench.presets").joinpath(f"{preset}.yaml").read_text()
        below = yaml.load(text, Loader)
        changed = sorted(set(values) - {"name", "methods"})
        values = merged(below | {"name": preset}, values)
        if changed and values["name"] == preset:
            values["name"] = f"{preset} with other {', '.join(changed)}"
    return _validated(Protocol, values, where, errors) or Protocol()


def _pair(value: Any) -> Any:
    if isinstance(value, str) and "->" in value:
        teacher, _, student = value.partition("->")
        return {"teacher": teacher.strip(), "student": student.strip()}
    return value


def _row(value: Any, base: Path, where: str, errors: list[str]) -> Any:
    options: Any = {}
    if isinstance(value, dict) and len(value) == 1:
        value, options = next(iter(value.items()))
        options = options or {}
    if not isinstance(value, str) or not isinstance(options, dict):
        errors.append(f"{where}: {value!r}: expected NAME, NAME+NAME or {{NAME: {{key: value}}}}")
        return {"name": "kd"}
    names = [name.strip() for name in value.split("+")]
    # A plugin's path is taken from the grid file's folder, or else from the working folder.
    placed = [
        str((base / name).resolve() if (base / name).exists() else Path(name).resolve())
        if name.endswith(".py")
        else name
        for name in names
    ]
    return {"name": "+".join(placed), "options": options}


def _validated(model: type[Model], values: Any, where: str, errors: list[str]) -> Model | None:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for one in error.errors():
            loc = [str(part) for part in one["loc"]]
            key = ".".join(([where] if where else []) + loc)
            if one["type"] == "extra_forbidden":
                accepted = _fields(model, one["loc"][:-1])
                errors.append(f"{key}: {unknown(loc[-1], accepted)}")
            else:
                message = one["msg"].removeprefix("Value error, ")
                given = one["input"]
                shown = f" (not {given!r})" if isinstance(given, (str, int, float, bool)) else ""
                errors.append(f"{key}: {message}{shown}")
        return None


def _fields(model: type[BaseModel], loc: Iterable[Any]) -> list[str]:
    """Keys that are accepted at a place inside a model."""
    for part in loc:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        for candidate in (inner, *getattr(inner, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
                break
    return list(model.model_fields)


def _check_names(grid: Grid, errors: list[str]) -> None:
    """Architectures, methods, hyper-parameters, sweeps: what only the registries can say."""
    for i, pair in enumerate(grid.pairs):
        for role in ("teacher", "student"):
            name = getattr(pair, role)
            if not models.known(name):
                near = models.suggest(name)
                hint = f" (did you mean {near[0]}?)" if near else ""
                errors.append(
                    f"pairs.{i}.{role}: {name}: unknown model; `kdbench models` lists all{hint}"
                )
    taken: dict[str, int] = {}
    for i, row in enumerate(grid.methods):
        where = f"methods.{row.name.rsplit('/', 1)[-1]}"
        parts = row.name.split("+")
        errors += [f"{where}: {line}" for line in options_errors(parts, row.options)]
        label = str(row.options.get("label") or row.name)
        if label in taken:
            errors.append(
                f"{where}: twice in the list ({taken[label]} and {i}); give one a `label:`"
            )
        taken[label] = i
    rows = {row.name for row in grid.methods}
    for key, values in grid.sweep.items():
        method, _, option = key.rpartition(".")
        if method not in rows:
            errors.append(f"sweep.{key}: {method or key}: {unknown(method, rows)}")
        elif not values:
            errors.append(f"sweep.{key}: no values")
        else:
            for value in values:
                problems = options_errors(method.split("+"), {option: value})
                errors += [f"sweep.{key}: {line}" for line in problems]
    for method, options in grid.protocol.methods.items():
        errors += [
            f"protocol.methods.{method}: {line}"
            for line in options_errors(method.split("+"), options)
        ]
    if grid.report.baseline not in rows and rows:
        short = {row.name.rsplit("/", 1)[-1].removesuffix(".py") for row in grid.methods}
        if "report" in grid.model_fields_set and "baseline" in grid.report.model_fields_set:
            errors.append(f"report.baseline: {unknown(grid.report.baseline, short)}")


def options_errors(parts: Sequence[str], options: dict[str, Any]) -> list[str]:
    """What is wrong with the options of one row of methods."""
    out = []
    for part in parts:
        try:
            registry.describe(part)
        except registry.RegistryError as error:
            out.append(str(error))
    if out:
        return out
    general = {key: value for key, value in options.items() if key in OPTIONS}
    own = {key: value for key, value in options.items() if key not in OPTIONS}
    _validated(MethodOptions, general, "", out)
    auxiliary = general.get("auxiliary")
    if isinstance(auxiliary, dict):
        if not models.known(str(auxiliary.get("student", ""))):
            out.append(f"auxiliary.student: {auxiliary.get('student')}: unknown model")
        aux_parts = str(auxiliary.get("method", "")).split("+")
        out += [f"auxiliary.method: {line}" for line in options_errors(aux_parts, {})]
    if len(parts) == 1:
        try:
            registry.hyper(parts[0], own)
        except registry.RegistryError as error:
            out.append(str(error))
        return out
    if "beta" in general:
        out.append(f"beta: of which term? write {parts[0]}: {{beta: ...}}")
    for part, values in own.items():
        if part not in parts:
            out.append(f"{part}: {unknown(part, [*parts, *OPTIONS])}")
        elif not isinstance(values, dict):
            out.append(f"{part}: expected a mapping of options, not {values!r}")
        else:
            allowed = {"beta", *registry.describe(part).hyper}
            out += [f"{part}.{key}: {unknown(key, allowed)}" for key in set(values) - allowed]
    return out
