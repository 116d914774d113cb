"""Reading the settings: the command line over the environment over one TOML file.

A key that does not exist is an error wherever it stands: a misspelt limit must not be no limit.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from zene.domain.errors import SetupError
from zene.settings.values import TYPES, Model, Secret, Settings, variable

FILE_NAME = "zene.toml"
# Read from the environment by others: which file to read, and what the command line talks to.
OTHER_VARIABLES = ("ZENE_CONFIG", "ZENE_URL", "ZENE_TOKEN")


def load(
    environ: Mapping[str, str],
    *,
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from `overrides` (where not None), `environ` and a file. Raises SetupError.

    The file is `config`, or `ZENE_CONFIG`, or `zene.toml` in the data folder where there is one.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    values = _from_environment(environ) | given
    named = config or (Path(environ["ZENE_CONFIG"]) if environ.get("ZENE_CONFIG") else None)
    home = _absolute(values.get("data_dir", Settings().data_dir))
    values = _from_file(named, home, environ) | values
    values["data_dir"] = _absolute(values.get("data_dir", home))
    return Settings(**values)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    variables = {v: name for name in TYPES if (v := variable(name))}
    for key in environ:
        if key.startswith("ZENE_") and key not in variables and key not in OTHER_VARIABLES:
            raise _unknown(key, (*variables, *OTHER_VARIABLES), "the environment")
    return {
        name: _checked(environ[key], name, where=key, strict=False)
        for key, name in variables.items()
        if environ.get(key)
    }


def _from_file(named: Path | None, home: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    path = named or home / FILE_NAME
    if named is None and not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text())
    except OSError as err:
        raise SetupError(f"Cannot read the settings file {path}: {err.strerror}.") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise SetupError(f"{path} is not valid TOML: {err}") from err
    if named is None and "data_dir" in table:
        raise SetupError(
            f"{path} cannot set data_dir: it is read because it lies there. Set ZENE_DATA_DIR."
        )
    _check_names(table, path)
    values = {
        name: _checked(value, name, where=f"{name} in {path}", strict=True)
        for name, value in table.items()
    }
    if "models" in values:
        values["models"] = {n: _model(n, m, environ) for n, m in values["models"].items()}
    return values


def _check_names(table: Mapping[str, Any], path: Path) -> None:
    for key in table:
        if key not in TYPES:
            raise _unknown(key, TYPES, str(path))
    models = table.get("models")
    for name, fields in models.items() if isinstance(models, dict) else ():
        for key in fields if isinstance(fields, dict) else ():
            if key not in Model.__struct_fields__:
                raise _unknown(key, Model.__struct_fields__, f"[models.{name}] of {path}")


def _model(name: str, model: Model, environ: Mapping[str, str]) -> Model:
    """The model with its key taken from the variable that it names."""
    if model.api is not None and model.provider != "openai":
        raise SetupError(f"[models.{name}] has an api, which only provider = 'openai' has.")
    if model.api_key_env is None:
        return model
    if not (key := environ.get(model.api_key_env)):
        raise SetupError(
            f"[models.{name}] takes its key from {model.api_key_env}, which is not set."
        )
    return msgspec.structs.replace(model, api_key=Secret(key))


def _checked(value: object, name: str, *, where: str, strict: bool) -> Any:
    """The value as the setting's type has it. From the environment, lists are separated by commas."""
    if isinstance(value, str) and TYPES[name].__origin__ == tuple[str, ...]:
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.convert(value, TYPES[name], strict=strict, dec_hook=_decode)
    except msgspec.ValidationError as err:
        raise SetupError(f"{where}: {err}.") from err


def _decode(kind: type, value: object) -> object:
    if not isinstance(value, str):
        raise msgspec.ValidationError(f"Expected `str`, got `{type(value).__name__}`")
    return Secret(value) if kind is Secret else Path(value)


def _unknown(key: str, known: Iterable[str], where: str) -> SetupError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near else ""
    return SetupError(
        f"There is no setting {key} ({where}).{hint} docs/reference/settings.md lists them."
    )


def _absolute(path: Path | str) -> Path:
    return Path(path).expanduser().absolute()
