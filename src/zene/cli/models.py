"""What a server and a look at the machine say of the model that answers."""

from zene.settings import Settings


def model_state(settings: Settings) -> list[str]:
    """Which model answers, and what is missing for a real one."""
    model = settings.named(settings.model)
    if model.provider == "demo":
        return [
            "No model is set up: tasks are answered by the demo, a scripted conversation.",
            "For a real one set ZENE_MODEL=openai:NAME and OPENAI_API_KEY (or anthropic:NAME and ANTHROPIC_API_KEY).",
        ]
    if model.api_key is None:
        return [
            f"Model {settings.model} at {model.url}, without a key: set {model.provider.upper()}_API_KEY."
        ]
    return [f"Model {settings.model} at {model.url}"]
