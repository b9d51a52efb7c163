"""Parts of one's own beside those of ppcls: a class by its import path, or an object of Python.

Where several kinds may stand, told apart by `kind` or `op`, a recipe may name a class or function,
as in `loss: {kind: my_pkg.losses.Mine, alpha: 2}`. The other keys are checked against the
annotations of its parameters. In Python an object may stand there; a recipe that is written down
then says `kind: given`, and whoever goes on with it gives the object again.
"""

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache, partial
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import (
    CoreSchema,
    InitErrorDetails,
    PydanticCustomError,
    PydanticSerializationError,
    core_schema,
)

from ppcls.utils import modules
from ppcls.utils.errors import UserError
from ppcls.utils.text import visible

GIVEN = "given"  # the kind of what is an object of Python, and in no recipe
WHAT = "what"  # the key that says which
UNKNOWN = "unknown_own_key"  # the type of an error, which knows the keys there are
LONGEST = 200  # characters of what an object says of itself

Role = TypeVar("Role", bound="Own")


@dataclass(frozen=True)
class Own:
    """A part of one's own; classes that follow say what it is called as.

    Attributes:
        path: its import path, or GIVEN.
        options: the other keys, plain values.
        part: the object itself; None: it was given in Python, and has to be given again.
    """

    path: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    part: Any = field(default=None, compare=False, repr=False)

    tag: ClassVar[str] = "kind"  # the key that names it
    called: ClassVar[str] = ""  # says in words what the part has to be
    supplied: ClassVar[int] = 0  # arguments that a function gets beside its options
    needs: ClassVar[tuple[str, ...]] = ("__call__",)  # methods of an object
    beside: ClassVar[Mapping[str, Any]] = {}  # keys that need not be parameters, and their types
    argument: ClassVar[str] = ""  # of `ppcls.train`, which takes such an object

    def __deepcopy__(self, memo: Any) -> "Own":
        return self

    @property
    def kind(self) -> str:
        return self.path

    @property
    def op(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.options.get(WHAT, self.path)) if self.path == GIVEN else self.path

    def plain(self) -> dict[str, Any]:
        """What a recipe says of it."""
        return {self.tag: self.path, **self.options}

    def require(self, key: str = "") -> Any:
        """The object. UserError where it was given in Python and is not here."""
        if self.part is None:
            again = f": {self.argument}=… of ppcls.train takes it" if self.argument else ""
            place = f"{key}: " if key else ""
            raise UserError(f"{place}{self.name} was given in Python: give it again{again}")
        return self.part

    def run(self, *given: Any) -> Any:
        """What the part returns; whatever goes wrong in it is one line that says where."""
        part = self.require()
        with self.speaking():
            return part(*given)

    def speaking(self) -> "Speaking":
        """While entered, an error of the part's own code is a UserError with its place."""
        return Speaking(self.name)

    @classmethod
    def named(cls: type[Role], value: Mapping[str, Any]) -> Role:
        """The part of a mapping with an import path in it.

        Raises:
            ValueError: no such class, or keys that do not fit it.
        """
        options = {key: released(own) for key, own in value.items() if key != cls.tag}
        path = value[cls.tag]
        if path == GIVEN:
            return cls(GIVEN, {WHAT: str(options.get(WHAT, "an object"))})
        try:
            found = modules.find(path)
            cls.refuse_other(found, path)
            wanted = parameters(found, cls)
        except ValueError as error:
            raise at_key(cls.tag, path, error) from None
        checked, kept = check(wanted, options)
        extra = {key: checked.pop(key) for key in wanted.beside if key in checked}
        try:
            if inspect.isclass(found):
                part = found(**checked)
            else:
                part = partial(found, **checked)
        except ValidationError:
            raise
        except Exception as error:
            words = str(error) if isinstance(error, ValueError) else modules.in_line(error)
            raise ValueError(f"{path}: {words}") from None
        return cls.holding(part, path, {**kept, **extra})

    @classmethod
    def holding(
        cls: type[Role], part: Any, path: str = "", options: Mapping[str, Any] | None = None
    ) -> Role:
        """An object of Python; ValueError where it is none of these."""
        if inspect.isclass(part):
            raise ValueError(f"{modules.path_of(part)} is a class: give an object of it")
        if not path:
            cls.refuse_other(part, words_of(part))
        return cls(path or GIVEN, options or {WHAT: words_of(part)}, part)

    @classmethod
    def refuse_other(cls, found: Any, path: str) -> None:
        """ValueError for what cannot be such a part."""
        function = inspect.isroutine(found)
        lacking = [name for name in cls.needs if not hasattr(found, name)]
        if function and "__call__" not in cls.needs:
            lacking = [*cls.needs]
        if inspect.isclass(found) and "__call__" in cls.needs and not calls(found):
            lacking = ["__call__"]
        if lacking:
            raise ValueError(f"{path} should be {cls.called}; it has no {lacking[0]}")


class Speaking:
    """Makes errors of somebody's code into one line."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError | MemoryError):
            raise UserError(f"{self.name}: {modules.in_line(error)}") from error


def calls(cls: type) -> bool:
    """Whether objects of a class can be called."""
    return any("__call__" in vars(one) for one in cls.__mro__)


def words_of(part: Any) -> str:
    """What stands for an object in a recipe: what it says of itself, or else its import path."""
    kind = type(part)
    told = kind.__repr__ is not object.__repr__ and not inspect.isroutine(part)
    text = " ".join(repr(part).split()) if told else ""
    if not text or " at 0x" in text:
        text = modules.path_of(part)
    return visible(text.removeprefix("__main__.").removeprefix("builtins."), LONGEST)


class Held:
    """An object of Python in a tree of plain values."""

    def __init__(self, part: Any):
        self.part = part

    def __deepcopy__(self, memo: Any) -> "Held":
        return self

    def __repr__(self) -> str:
        return words_of(self.part)


def held(value: Any) -> Any:
    """Nested dicts, lists and scalars as they are, all else in `Held`."""
    if isinstance(value, Mapping):
        return {key: held(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [held(own) for own in value]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool | Own | Held):
        return value
    if hasattr(type(value), "__pydantic_validator__"):  # a node
        return value
    return Held(value)


def released(value: Any) -> Any:
    """As it was before `held`."""
    if isinstance(value, Held):
        return value.part
    if isinstance(value, dict):
        return {key: released(own) for key, own in value.items()}
    return [released(own) for own in value] if isinstance(value, list) else value


class OrOwn:
    """Beside what is annotated with this, a part of one's own in a role may stand there."""

    def __init__(self, role: type[Own]):
        self.role = role

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema = handler(source)
        written = core_schema.wrap_serializer_function_ser_schema(self.write, schema=schema)
        return core_schema.no_info_wrap_validator_function(self.read, schema, serialization=written)

    def read(self, value: Any, usual: Callable[[Any], Any]) -> Any:
        if isinstance(value, Own):
            return value
        if isinstance(value, Held):
            return self.role.holding(value.part)
        kind = value.get(self.role.tag) if isinstance(value, dict) else None
        if isinstance(kind, str) and ("." in kind or kind == GIVEN):
            return self.role.named(value)
        return usual(value)

    def write(self, value: Any, usual: Callable[[Any], Any]) -> Any:
        return value.plain() if isinstance(value, Own) else usual(value)


def own_parts(value: Any) -> Iterator[Own]:
    """The parts of one's own in nested nodes, mappings and lists."""
    if isinstance(value, Own):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from own_parts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from own_parts(inner)
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            yield from own_parts(getattr(value, one.name))


# --------------------------------------------------------------------------
# What a class or function of one's own takes, and whether a recipe's keys fit


class Unset:
    """Stands for the value of a parameter that is not given."""


@dataclass(frozen=True)
class Wanted:
    """The keys of a part of one's own.

    Attributes:
        node: a node with its parameters as fields.
        defaults: of those that need not be given.
        beside: keys that are not the part's own parameters.
    """

    node: type
    defaults: Mapping[str, Any]
    beside: Sequence[str]

    @property
    def keys(self) -> list[str]:
        return [one.name for one in fields(self.node)]


@cache
def parameters(found: Callable[..., Any], role: type[Own]) -> Wanted:
    """What a class or function takes. ValueError where its annotations cannot be read."""
    function = not inspect.isclass(found)
    annotated: Any = found if function or is_dataclass(found) else found.__init__
    try:
        signature = inspect.signature(found)
        hints = typing.get_type_hints(annotated, include_extras=True)
    except Exception as error:  # an annotation may be any expression
        path = modules.path_of(found)
        raise ValueError(f"{path}: its annotations cannot be read: {error}") from None
    own = list(signature.parameters.values())[role.supplied if function else 0 :]
    own = [one for one in own if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    own = [one for one in own if one.name != role.tag]  # of a node that has one
    beside = [key for key in role.beside if key not in {one.name for one in own}]
    made: list[Any] = []
    for one in own:
        hint = strict(hints.get(one.name, Any))
        value = field() if one.default is one.empty else field(default=Unset)
        made.append((one.name, hint, value))
    made += [(key, role.beside[key], field(default=Unset)) for key in beside]
    made.sort(key=lambda item: item[2].default is Unset)  # those with defaults come last
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    try:
        node = pydantic_dataclass(config=config, kw_only=True)(make_dataclass("Keys", made))
        TypeAdapter(node)
    except Exception as error:  # what pydantic makes no schema of
        path = modules.path_of(found)
        first = str(error).strip().split("\n")[0]
        raise ValueError(f"{path}: its annotations cannot be read: {first}") from None
    defaults = {one.name: one.default for one in own if one.default is not one.empty}
    return Wanted(node, defaults, beside)


def strict(hint: Any) -> Any:
    """An annotation with which `2` is no text, `true` no number and `2.5` no whole number."""
    if hint in (int, float, bool):
        return Annotated[hint, Field(strict=True)]
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, *rest = arguments
        return Annotated[(strict(inner), *rest)]  # type: ignore[return-value]
    if not arguments or origin is typing.Literal or origin is None:
        return hint
    if any(not isinstance(one, type) and typing.get_origin(one) is None for one in arguments):
        return hint  # as of a Callable
    inside = tuple(strict(one) for one in arguments)
    if isinstance(hint, type(int | str)):
        return typing.Union[inside]  # noqa: UP007
    try:
        return origin[inside] if origin is not typing.Union else typing.Union[inside]  # noqa: UP007
    except TypeError:
        return hint


def check(wanted: Wanted, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of given keys, and all keys as a recipe keeps them, defaults among them.

    Raises:
        ValidationError: unknown or missing keys, or values of other types.
    """
    adapter = TypeAdapter(wanted.node)
    try:
        values = adapter.validate_python(dict(options))
    except ValidationError as error:
        raise telling(error, wanted.keys) from None
    given = {key: getattr(values, key) for key in wanted.keys if key in options}
    kept = {**wanted.defaults, **given}
    own = {key: value for key, value in kept.items() if key not in wanted.beside}
    try:
        plain = adapter.dump_python(adapter.validate_python(own), mode="json", exclude=unset(own))
        adapter.validate_python(plain)
    except Exception:  # a default that is no plain value, or of another type than is annotated
        plain = {key: written(value) for key, value in given.items() if key not in wanted.beside}
    return given, plain


def written(value: Any) -> Any:
    """A plain value as it is, and words for an object of Python."""
    try:
        return TypeAdapter(Any).dump_python(value, mode="json")
    except PydanticSerializationError:
        return words_of(value)


def unset(values: Mapping[str, Any]) -> Any:
    return {key for key, value in values.items() if value is Unset}


def telling(error: ValidationError, keys: Sequence[str]) -> ValidationError:
    """The same mistakes, those of unknown keys with the keys that there are."""
    lines = []
    for one in error.errors(include_url=False):
        kind: Any = one["type"]
        if kind == UNKNOWN:  # of a part inside this one
            kind = PydanticCustomError(UNKNOWN, "unknown key", one.get("ctx", {}))
        elif kind in ("unexpected_keyword_argument", "extra_forbidden") and len(one["loc"]) == 1:
            kind = PydanticCustomError(UNKNOWN, "unknown key", {"keys": list(keys)})
        lines.append(detail(kind, one["loc"], one["input"], one.get("ctx", {})))
    return ValidationError.from_exception_data("own", lines)


def at_key(key: str, value: Any, error: ValueError) -> ValidationError:
    """A mistake in the value of a key."""
    line = detail("value_error", (key,), value, {"error": error})
    return ValidationError.from_exception_data("own", [line])


def detail(kind: Any, loc: tuple, value: Any, context: Mapping[str, Any]) -> InitErrorDetails:
    return {"type": kind, "loc": loc, "input": value, "ctx": dict(context)}
