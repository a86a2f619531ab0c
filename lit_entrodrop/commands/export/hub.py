"""Upload an exported folder to the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from lit_entrodrop.model.hub import use_cache_if_unreachable


def check_repository(name: str) -> None:
    """Refuse a name that no repository can have.

    Raises:
        ValueError: If it is not of the form ``owner/name``.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(
            f"push_to: expected owner/name on the hub, got {name!r}: {error}"
        ) from None
    if "/" not in name:
        raise ValueError(f"push_to: expected owner/name on the hub, got {name!r}: add the owner")


def check_access(name: str) -> None:
    """Refuse an upload that would fail because the token is missing or lacks rights.

    Raises:
        ValueError: If the hub cannot be reached, knows no token, or the token is of another owner.
    """
    if unreachable := use_cache_if_unreachable():
        raise ValueError(f"push_to: {unreachable}: connect to the network, or leave it out")
    with _one_line(name):
        account = HfApi().whoami()
    owners = [account["name"], *(each["name"] for each in account.get("orgs", []))]
    if (owner := name.partition("/")[0]) not in owners:
        raise ValueError(
            f"push_to: expected an owner among {', '.join(owners)}, to which the token belongs, "
            f"got {owner}"
        )


def push(folder: Path, name: str, private: bool) -> str:
    """Upload all files of a folder in one commit, to a repository that is created if needed.

    Args:
        folder: The folder.
        name: Name of the repository, ``owner/name``.
        private: Whether a new repository is private; an existing one stays as it is.

    Returns:
        Address of the commit.

    Raises:
        ValueError: If the hub refuses it.
    """
    api = HfApi()
    with _one_line(name):
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Upload with lit-entrodrop"
        )
    return commit.commit_url


def describe_push(folder: Path, name: str, private: bool) -> str:
    """Return what :func:`push` would upload: the repository, and each file with its size."""
    files = sorted(folder.iterdir())
    sizes = [file.stat().st_size for file in files]
    rows = [f"{size:>15,}  {file.name}" for file, size in zip(files, sizes, strict=True)]
    visibility = "private" if private else "public"
    return "\n".join(
        [
            f"dry run: would upload {len(files)} files, {sum(sizes):,} bytes, to {name} "
            f"({visibility} if it is new):",
            *rows,
        ]
    )


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    try:
        yield
    except LocalTokenNotFoundError:
        raise ValueError(
            "push_to: expected a token of the hub, found none: run `hf auth login`, or set HF_TOKEN"
        ) from None
    except Exception as error:  # of the HTTP library, which changes between versions
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"push_to: {name} refused the upload: {reason}") from error
