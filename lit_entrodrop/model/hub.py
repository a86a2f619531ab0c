"""Check, once and within seconds, whether the Hugging Face hub can be reached."""

from functools import cache

from huggingface_hub import constants, get_session

TIMEOUT = 10  # seconds


@cache
def use_cache_if_unreachable() -> str | None:
    """Let the libraries of Hugging Face read only their cache if the hub cannot be reached.

    Otherwise they would try to reach it for half a minute, for each file.

    Returns:
        Why the hub cannot be reached; None if it can.
    """
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except Exception as error:  # of the HTTP library, which changes between versions
        constants.HF_HUB_OFFLINE = True
        return f"{constants.ENDPOINT} cannot be reached ({error})"
    return None
