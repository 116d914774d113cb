from pathlib import Path

import pytest

from zene.domain.errors import SetupError
from zene.settings import TYPES, Secret, Settings, load, variable


def written(folder: Path, text: str) -> dict[str, str]:
    """An environment whose data folder holds this settings file."""
    (folder / "zene.toml").write_text(text)
    return {"ZENE_DATA_DIR": str(folder)}


def test_without_anything_the_settings_fit_one_machine() -> None:
    settings = load({"ZENE_DATA_DIR": "/nowhere"})
    assert (settings.host, settings.port, settings.bus) == ("127.0.0.1", 8420, "memory://")
    assert settings.store_url == "sqlite:////nowhere/zene.db"
    assert settings.cpus >= 1


def test_the_command_line_beats_the_environment_and_that_the_file(tmp_path: Path) -> None:
    environ = written(tmp_path, 'port = 1\nhost = "::1"\nslots = 7')
    environ |= {"ZENE_PORT": "2", "ZENE_HOST": "0.0.0.0"}
    settings = load(environ, overrides={"port": 3, "host": None})
    assert (settings.port, settings.host, settings.slots) == (3, "0.0.0.0", 7)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "80", 80),
        ("lease_seconds", "2.5", 2.5),
        ("allow_weak_sandbox", "true", True),
        ("allow_weak_sandbox", "0", False),
        ("sandbox_cpus", "1.5", 1.5),
        ("trusted_proxies", "10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
        ("admin_password", "correct horse", Secret("correct horse")),
        ("log_format", "json", "json"),
    ],
)
def test_variables_are_read_as_what_they_are(name: str, text: str, value: object) -> None:
    assert getattr(load({str(variable(name)): text}), name) == value


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert load({"ZENE_PORT": "", "OPENAI_API_KEY": ""}) == load({})


def test_the_providers_own_variables_count() -> None:
    settings = load(
        {"ZENE_MODEL": "openai:some", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://m/v1"}
    )
    model = settings.named(settings.model)
    assert (model.provider, model.model, model.url) == ("openai", "some", "http://m/v1")
    assert model.api_key == Secret("k")


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"ZENE_PRT": "1"}, "Did you mean ZENE_PORT?"),
        ({"ZENE_PORT": "web"}, "ZENE_PORT: Expected `int`"),
        ({"ZENE_PORT": "70000"}, "<= 65535"),
        ({"ZENE_LEASE_SECONDS": "0"}, "> 0"),
        ({"ZENE_ALLOW_WEAK_SANDBOX": "perhaps"}, "Expected `bool`"),
        ({"ZENE_LOG_FORMAT": "xml"}, "Invalid enum value"),
        ({"ZENE_CONFIG": "/nowhere/zene.toml"}, "/nowhere/zene.toml: No such file"),
    ],
)
def test_a_variable_that_does_not_fit_is_named(environ: dict[str, str], told: str) -> None:
    with pytest.raises(SetupError) as refused:
        load(environ)
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_active_task = 3", "Did you mean max_active_tasks?"),
        ("port = '80'", "port in"),
        ("port = ", "not valid TOML"),
        ('data_dir = "/elsewhere"', "Set ZENE_DATA_DIR"),
        ('[models.mine]\nprovider = "openai"\nwindw = 3', "Did you mean window?"),
        ('[models.mine]\nprovider = "somebody"', "Invalid enum value"),
        ("[models.mine]\nwindow = 4096", "missing required field `provider`"),
        ("models = 3", "models in"),
        ('[models.mine]\nprovider = "openai"\napi_key_env = "MINE"', "MINE, which is not set"),
        ('[models.mine]\nprovider = "openai"\napi = "completions"', "Invalid enum value"),
        ('[models.mine]\nprovider = "anthropic"\napi = "chat"', "only provider = 'openai'"),
        ('openai_api = "messages"', "Invalid enum value"),
    ],
)
def test_a_file_that_does_not_fit_is_explained(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SetupError) as refused:
        load(written(tmp_path, text))
    assert told in refused.value.message


def test_a_model_of_the_file_takes_its_key_from_its_variable(tmp_path: Path) -> None:
    environ = written(
        tmp_path,
        """
        model = "mine"
        openai_api_key = "everybody's"
        [models.mine]
        provider = "openai"
        model = "big-one"
        api_key_env = "MINE"
        max_output_tokens = 2048
        [models.other]
        provider = "openai"
        """,
    )
    settings = load(environ | {"MINE": "mine alone"})
    mine, other = settings.named("mine"), settings.named("other")
    assert settings.choices() == ("mine", "other")
    assert (mine.model, mine.api_key, mine.max_output_tokens) == (
        "big-one",
        Secret("mine alone"),
        2048,
    )
    assert (other.model, other.api_key) == ("other", Secret("everybody's"))
    assert sorted(settings.secrets()) == ["everybody's", "mine alone"]


def test_a_model_says_which_interface_its_endpoint_has(tmp_path: Path) -> None:
    environ = written(
        tmp_path,
        """
        openai_api = "responses"
        [models.usual]
        provider = "openai"
        [models.plain]
        provider = "openai"
        api = "chat"
        [models.elsewhere]
        provider = "openai"
        url = "http://127.0.0.1:8000/v1"
        [models.other]
        provider = "anthropic"
        """,
    )
    settings = load(environ)
    names = ("openai:x", "usual", "plain", "elsewhere", "other", "demo:")
    apis = ("responses", "responses", "chat", None, None, None)
    assert tuple(settings.named(name).api for name in names) == apis
    assert Settings().named("openai:x").api is None
    assert load({"ZENE_OPENAI_API": "chat"}).named("openai:x").api == "chat"


def test_another_file_may_say_where_the_data_is(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.toml"
    file.write_text(f'data_dir = "{tmp_path / "data"}"')
    assert load({}, config=file).data_dir == tmp_path / "data"
    assert load({"ZENE_CONFIG": str(file)}).data_dir == tmp_path / "data"


@pytest.mark.parametrize("name", ["", "openai:", "openai", "demo:x", "gemini:x", "mine"])
def test_a_model_that_nobody_set_up_is_refused(name: str) -> None:
    with pytest.raises(SetupError, match="There is no model"):
        Settings().named(name)


def test_secrets_show_in_no_repr() -> None:
    settings = load({"ZENE_ADMIN_PASSWORD": "hunter2hunter2", "OPENAI_API_KEY": "sk-planted"})
    assert "hunter2" not in f"{settings!r} {settings}"
    assert "planted" not in f"{settings!r} {settings.named('openai:x')}"


def test_every_setting_has_a_sentence() -> None:
    undescribed = [name for name, kind in TYPES.items() if not kind.__metadata__[-1].description]
    assert undescribed == []


def test_passwords_in_urls_are_secrets_and_not_shown() -> None:
    store, bus = "postgresql://me:a%40b@one,two:5432/zene", "redis://:crab@host/0"
    settings = load({"ZENE_STORE": store, "ZENE_BUS": bus})
    assert sorted(settings.secrets()) == ["a%40b", "a@b", "crab"]
    assert settings.store_shown == "postgresql://me@one,two:5432/zene"
