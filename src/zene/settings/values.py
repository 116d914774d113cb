"""What can be set: each setting with its sentence, unit, bounds and default, right for one machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, get_type_hints
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta, Struct

from zene.domain.errors import SetupError

_PROVIDERS = ("openai", "anthropic", "demo")
_WITHOUT_PREFIX = ("openai_api_key", "openai_base_url", "anthropic_api_key", "anthropic_base_url")


class Secret:
    """A value that shows in no repr, log or traceback; `reveal` is where it comes out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def _half_of_the_cores() -> float:
    return max(1.0, (os.cpu_count() or 1) / 2)


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that people may choose, one `[models.NAME]` table of the file each."""

    provider: Annotated[
        Literal["openai", "anthropic", "demo"],
        Meta(description="The maker whose interface its endpoint speaks."),
    ]
    model: Annotated[
        str | None, Meta(description="The name its endpoint knows it by; by default NAME.")
    ] = None
    url: Annotated[
        str | None, Meta(description="Its endpoint; by default the provider's base URL.")
    ] = None
    api_key: Annotated[
        Secret | None, Meta(description="Its key; by default the provider's key.")
    ] = None
    api_key_env: Annotated[
        str | None, Meta(description="The variable that holds its key, instead of `api_key`.")
    ] = None
    api: Annotated[
        Literal["responses", "chat"] | None,
        Meta(
            description="The interface of an `openai` endpoint: `responses`, or `chat` for chat completions; by default `openai_api` or, where it has a `url` of its own, `responses` at OpenAI and `chat` elsewhere."
        ),
    ] = None
    window: Annotated[
        Annotated[int, Meta(ge=1024)] | None,
        Meta(description="Its context window in tokens; by default from the price list."),
    ] = None
    max_output_tokens: Annotated[
        Annotated[int, Meta(ge=1024)] | None,
        Meta(description="Its cap on the output of one call in tokens; by default the global one."),
    ] = None
    input_price: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="US dollars for a million input tokens; by default from the price list."),
    ] = None
    cached_price: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="US dollars for a million input tokens that were cached."),
    ] = None
    cache_write_price: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="US dollars for a million input tokens that were written to the cache."),
    ] = None
    output_price: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="US dollars for a million output tokens; by default from the price list."),
    ] = None


class Settings(Struct, frozen=True, kw_only=True):
    """One installation's settings, checked and complete."""

    data_dir: Annotated[
        Path, Meta(description="Where the database, workspaces and keys are kept.")
    ] = Path("~/.local/share/zene")
    host: Annotated[
        str, Meta(min_length=1, description="The address that the server listens on.")
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="The TCP port it listens on; 0 takes a free one.")
    ] = 8420
    metrics_host: Annotated[
        str,
        Meta(
            min_length=1,
            description="The address that `/metrics` listens on, of a gateway and of a worker; anyone who reaches it may read them.",
        ),
    ] = "127.0.0.1"
    metrics_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="The TCP port that `/metrics` listens on; 0 takes a free one, which the log tells. One that is taken is warned of.",
        ),
    ] = 9420
    public_url: Annotated[
        str | None,
        Meta(
            description="How people reach the server from outside, such as `https://zene.example`."
        ),
    ] = None
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(description="Addresses and networks whose `X-Forwarded-*` headers are believed."),
    ] = ()
    allow_insecure_http: Annotated[
        bool,
        Meta(description="Serve plain HTTP off loopback, where passwords can be read on the way."),
    ] = False
    store: Annotated[
        str | None,
        Meta(
            description="The store's URL, `sqlite:///` or `postgresql://`; by default `sqlite:///` and `zene.db` in `data_dir`."
        ),
    ] = None
    bus: Annotated[
        str, Meta(description="The bus's URL: `memory://`, `redis://` or `rediss://`.")
    ] = "memory://"
    sandbox: Annotated[str, Meta(description="The URL of what runs the agents' commands.")] = (
        "bwrap://"
    )
    allow_weak_sandbox: Annotated[
        bool,
        Meta(description="Let several users share a machine that cannot enforce every cap."),
    ] = False
    sandbox_cpus: Annotated[
        float | None,
        Meta(
            description="Cores that one sandbox may use; by default half of the machine's, at least 1."
        ),
    ] = None
    sandbox_memory_mib: Annotated[
        int, Meta(ge=64, description="Memory that one sandbox may use, in MiB.")
    ] = 4096
    sandbox_pids: Annotated[
        int, Meta(ge=16, description="Processes and threads that one sandbox may have.")
    ] = 512
    warm_sandboxes: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="Sandboxes kept started for the sessions that need one next, some 10 MB each; as root only.",
        ),
    ] = 1
    sandbox_read_only_paths: Annotated[
        tuple[str, ...],
        Meta(
            description="Folders of this machine that every sandbox sees, read-only, at the same path."
        ),
    ] = ()
    workspace_mib: Annotated[
        int,
        Meta(
            ge=16,
            description="Disk that one session may use, workspace, home and temporary files, in MiB.",
        ),
    ] = 10240
    workspace_inodes: Annotated[
        int, Meta(ge=1024, description="Files and folders that one session may have.")
    ] = 262_144
    model: Annotated[
        str,
        Meta(
            description="The model that sessions use by default: `openai:NAME`, `anthropic:NAME`, `demo:` or a NAME from `[models.NAME]`."
        ),
    ] = "demo:"
    max_output_tokens: Annotated[
        int, Meta(ge=1024, description="The output cap of one model call, in tokens.")
    ] = 16_384
    openai_api_key: Annotated[Secret | None, Meta(description="The key for `openai:` models.")] = (
        None
    )
    openai_base_url: Annotated[
        str, Meta(description="The endpoint of `openai:` models; any compatible one.")
    ] = "https://api.openai.com/v1"
    openai_api: Annotated[
        Literal["responses", "chat"] | None,
        Meta(
            description="The interface of that endpoint: `responses`, or `chat` for chat completions; by default `responses` at OpenAI and `chat` elsewhere."
        ),
    ] = None
    anthropic_api_key: Annotated[
        Secret | None, Meta(description="The key for `anthropic:` models.")
    ] = None
    anthropic_base_url: Annotated[str, Meta(description="The endpoint of `anthropic:` models.")] = (
        "https://api.anthropic.com"
    )
    models: Annotated[
        dict[str, Model],
        Meta(description="Further models by name, in `[models.NAME]` tables; in the file only."),
    ] = msgspec.field(default_factory=dict)
    slots: Annotated[
        int, Meta(ge=1, description="Tasks that this process works on at once; others queue.")
    ] = 25
    max_active_tasks: Annotated[
        int, Meta(ge=1, description="Tasks of one user that are worked on at once; others queue.")
    ] = 4
    max_steps: Annotated[int, Meta(ge=1, description="Model calls after which a task ends.")] = 200
    max_minutes: Annotated[
        float,
        Meta(gt=0, description="Minutes of work after which a task ends; waiting does not count."),
    ] = 60.0
    lease_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="Seconds without a sign of life after which a worker is taken for dead.",
        ),
    ] = 15.0
    drain_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="Seconds that running tasks get to reach a safe point when the server stops.",
        ),
    ] = 25.0
    admin_email: Annotated[
        str, Meta(min_length=1, description="The first administrator's e-mail address.")
    ] = "admin@localhost"
    admin_password: Annotated[
        Secret | None,
        Meta(
            description="The first administrator's password; by default a one-time password is printed."
        ),
    ] = None
    secret_key: Annotated[
        Secret | None,
        Meta(
            description="Wraps what is encrypted in the store, any text of 32 characters or more; by default made once and kept in `data_dir`."
        ),
    ] = None
    log_format: Annotated[
        Literal["auto", "text", "json"],
        Meta(description="How log lines are written; `auto` is text on a terminal, else JSON."),
    ] = "auto"

    @property
    def store_url(self) -> str:
        """The store's URL, made from `data_dir` where none is set."""
        return self.store or f"sqlite:///{self.data_dir / 'zene.db'}"

    @property
    def store_shown(self) -> str:
        """The store's URL as it may be shown: without a password."""
        password = urlsplit(self.store_url).password
        return self.store_url.replace(f":{password}@", "@") if password else self.store_url

    @property
    def cpus(self) -> float:
        """Cores that one sandbox may use."""
        return self.sandbox_cpus or _half_of_the_cores()

    def choices(self) -> tuple[str, ...]:
        """The models that people may choose from, the default first."""
        return tuple(dict.fromkeys((self.model, *self.models)))

    def named(self, name: str) -> Model:
        """The model of that name with all that it needs to be called. Raises SetupError."""
        provider, colon, model = name.partition(":")
        if name in self.models:
            chosen = self.models[name]
        elif provider in _PROVIDERS and colon and bool(model) == (provider != "demo"):
            chosen = msgspec.convert({"provider": provider, "model": model}, Model)
        else:
            raise SetupError(
                f"There is no model {name!r}. Write openai:NAME, anthropic:NAME, demo: or the name "
                "of a [models.NAME] table."
            )
        url, key = self._endpoint(chosen.provider)
        usual_api = None if chosen.provider != "openai" or chosen.url else self.openai_api
        return msgspec.structs.replace(
            chosen,
            model=chosen.model or name,
            api=chosen.api or usual_api,
            url=chosen.url or url,
            api_key=chosen.api_key or key,
            max_output_tokens=chosen.max_output_tokens or self.max_output_tokens,
        )

    def _endpoint(self, provider: str) -> tuple[str | None, Secret | None]:
        match provider:
            case "openai":
                return self.openai_base_url, self.openai_api_key
            case "anthropic":
                return self.anthropic_base_url, self.anthropic_api_key
            case _:
                return None, None

    def secrets(self) -> Iterator[str]:
        """Every secret value, so that logs can mask them."""
        for owner in (self, *self.models.values()):
            for name in owner.__struct_fields__:
                if isinstance(value := getattr(owner, name), Secret):
                    yield value.reveal()
        for url in (self.store_url, self.bus):
            if password := urlsplit(url).password:
                yield from {password, unquote(password)}


TYPES = get_type_hints(Settings, include_extras=True)


def variable(name: str) -> str | None:
    """The environment variable of a setting; None for what only a file can hold."""
    if name == "models":
        return None
    return name.upper() if name in _WITHOUT_PREFIX else f"ZENE_{name.upper()}"
