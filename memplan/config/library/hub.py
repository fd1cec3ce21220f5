"""config.json of a repository on the Hugging Face hub, by the hub's own package where it is installed."""

from __future__ import annotations

from memplan.errors import ConfigurationError, MissingDependencyError


def config_file(repository: str, suggestion: str = "") -> str:
    """The path of the config.json of `org/name`, fetched or taken from the hub's cache. `suggestion` ends the message
    where there is none.

    Raises MissingDependencyError without the package huggingface_hub, and ConfigurationError where the hub cannot be
    reached, or has no such repository or file, or asks for a token.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import logging
    except ImportError as error:
        raise MissingDependencyError(
            f"{repository} is no file here, and to ask the Hugging Face hub for it huggingface_hub is needed",
            f'pip install "memplan[hub]", or give the path of a config.json{suggestion}',
        ) from error
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its retries are told on standard error otherwise
    try:
        return str(hf_hub_download(repository, "config.json"))
    except Exception as error:  # the package has a dozen kinds, and its HTTP client more
        why = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ConfigurationError(
            f"{repository}: its config.json cannot be had from the Hugging Face hub: {why}",
            f"give the path of a config.json{suggestion}",
        ) from None
