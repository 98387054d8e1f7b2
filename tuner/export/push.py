"""An export on the Hugging Face Hub: one commit that holds every byte of it, or none.

What can be known to be wrong (the name, the network, the token, who may see it) is said before an export is made. Once
made, it is in its folder, whatever becomes of the upload.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.tuner.console import Progressing, hushed
from inlay.tuner.problems import AnswerNo, Interrupted, MachineError, Problem, RequestError
from inlay.tuner.report.figures import counted, size
from inlay.tuner.signals import StopRequest

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile, RepoSibling

LOGIN = "`hf auth login` with a token that may write (https://huggingface.co/settings/tokens), or set HF_TOKEN"
MADE_BY_THE_HUB = ".gitattributes"
NAMED = 5  # files of before, at most


@dataclass(frozen=True)
class Destination:
    """A repository that this machine's token may write to, as far as the hub tells.

    Attributes:
        repo: `owner/name`.
        public: whether everyone may see it.
    """

    repo: str
    public: bool


def destination(repo: str | None, *, public: bool) -> Destination | None:
    """Where an export is to be pushed; None where it is not.

    Args:
        repo: `name` or `owner/name`.
        public: for everyone to see; otherwise a repository that is public already is refused.

    Raises:
        RequestError: the name, the token or the repository cannot be used for it.
        MachineError: the hub cannot be reached.
    """
    if repo is None:
        if public:
            raise RequestError("--public says who may see what is pushed, and nothing is", help="add --push REPO")
        return None
    from huggingface_hub import HfApi, is_offline_mode
    from huggingface_hub.errors import HFValidationError, HTTPError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        help = "`owner/name`, each of letters, digits, `-`, `_` and `.`"
        raise RequestError(Problem(f"`{repo}` cannot be the name of a repository", file="--push", help=help)) from None
    if is_offline_mode():
        raise MachineError("the network is turned off, so nothing can be pushed", help="unset HF_HUB_OFFLINE")
    try:
        return _checked(HfApi(), repo, public)
    except (HTTPError, OSError, ValueError, KeyError) as error:  # the last two: what answers is no hub
        raise MachineError(f"the hub cannot be reached: {_words(error)}", help="or export without --push") from None


def push(folder: Path, where: Destination) -> str:
    """Uploads an export as one commit on top of what the repository holds, and compares what the hub then has with it.

    Returns:
        Lines with its address and commit, and the files that were there before and are none of its own.

    Raises:
        MachineError: the hub did not take it; the folder is as it was.
        AnswerNo: the hub holds other bytes, or does not let them be compared.
        Interrupted: stopped by a signal.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import disable_progress_bars

    import inlay

    show = Progressing()
    if not show.console.is_terminal:
        disable_progress_bars()
    again = ["hf", "upload", where.repo, str(folder), *([] if where.public else ["--private"])]
    kept, retry = f"the export in `{folder}` is whole", f"to push it: {shlex.join(again)}"
    api = HfApi(library_name="inlay", library_version=inlay.__version__)
    try:
        with hushed(), StopRequest():
            return _pushed(api, folder, where, f"An export with its proof, by inlay {inlay.__version__}", show)
    except (HTTPError, OSError, ValueError, RuntimeError) as error:  # the last is of the library that sends large files
        raise MachineError(f"{kept}, but its push failed: {_words(error)}", help=retry) from None
    except Interrupted as stop:
        raise Interrupted(f"{stop}; {kept}, but its push is not done\nhelp: {retry}", stop.exit_code) from None


def _checked(api: HfApi, repo: str, public: bool) -> Destination:
    """The destination, after the hub was asked about the token and the repository."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

    try:
        who = api.whoami()
    except LocalTokenNotFoundError:
        raise RequestError("no token of the hub is on this machine, so nothing can be pushed", help=LOGIN) from None
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise RequestError("the hub does not know this machine's token, so nothing can be pushed", help=LOGIN) from None
    own = str(who["name"])
    repo = repo if "/" in repo else f"{own}/{repo}"
    owner = repo.partition("/")[0]
    may_not = RequestError(f"this machine's token (of {own}) may not write to `{repo}`", help=LOGIN)
    if ((who.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise may_not
    try:
        held = api.model_info(repo)
    except RepositoryNotFoundError:
        owners = {own.lower(), *(str(organization["name"]).lower() for organization in who.get("orgs") or ())}
        if owner.lower() not in owners:
            message = f"`{owner}` is neither {own}, whose token this is, nor an organization of theirs"
            raise RequestError(Problem(message, file="--push", help=f"--push {own}/NAME")) from None
        return Destination(repo, public)
    try:
        api.auth_check(repo, write=True)
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403, 404):
            raise
        raise may_not from None
    _refuse_public(repo, public, held.private)
    files = counted(len(_others(held.siblings, {})), "file")
    seen = "; it stays private" if public and held.private else ""
    Progressing().say(f"push    {repo} has {files}: the export becomes a commit on top, nothing is deleted{seen}")
    return Destination(repo, not held.private)


def _refuse_public(repo: str, public: bool, private: bool | None) -> None:
    if not private and not public:
        help = "add --public to have everyone see the export, or name another repository"
        raise RequestError(Problem(f"`{repo}` is public", file="--push", help=help))


def _pushed(api: HfApi, folder: Path, where: Destination, message: str, show: Progressing) -> str:
    from huggingface_hub import CommitOperationAdd

    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    show.say(f"push    {size(sum(path.stat().st_size for path in paths))} to {where.repo}")
    url = api.create_repo(where.repo, private=not where.public, exist_ok=True)
    before = api.model_info(where.repo)
    _refuse_public(where.repo, where.public, before.private)
    # One commit, where `upload_folder` makes several: who downloads meanwhile gets the old files or the new ones.
    operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    commit = api.create_commit(where.repo, operations, commit_message=message)
    _refuse_other_bytes(api, where.repo, commit.oid, files)
    told = [f"push    {url}, {'public' if where.public else 'private'}; commit {commit.oid}"]
    if others := _others(before.siblings, files):
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        told.append(f"        also there, not of this export: {', '.join(others[:NAMED])}{more}")
    return "\n".join(told)


def _refuse_other_bytes(api: HfApi, repo: str, commit: str, files: Mapping[str, Path]) -> None:
    """Compares what a commit holds with the files on this disk, by their hashes."""
    from huggingface_hub.errors import HTTPError

    made = f"commit {commit[:12]} of `{repo}`"
    try:
        held = {entry.path: entry for entry in api.get_paths_info(repo, list(files), revision=commit)}
    except (HTTPError, OSError, ValueError) as error:
        raise AnswerNo(f"{made} is there, but could not be compared with the export: {_words(error)}") from None
    for name, path in files.items():
        entry = held.get(name)
        if entry is None or not _holds(entry, path):
            help = "look for what changes files there (a .gitignore, another upload), then push again"
            wrong = f"{'holds another' if entry else 'lacks'} `{name}`"
            raise AnswerNo(f"{made} {wrong}, so what is on the hub is not the export", help=help)


def _holds(entry: RepoFile, path: Path) -> bool:
    """Whether a file of the hub has these bytes: large ones are named by their own hash, others as git names them."""
    with path.open("rb") as file:
        if entry.lfs:
            return entry.lfs.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
        content = file.read()
    return entry.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _others(siblings: Sequence[RepoSibling] | None, files: Mapping[str, Path]) -> list[str]:
    """Names of files that a repository holds, but for these."""
    names = [sibling.rfilename for sibling in siblings or ()]
    return [name for name in names if name not in files and name != MADE_BY_THE_HUB]


def _words(error: Exception) -> str:
    """An error in a line; of the hub's answers its status and its own words."""
    from huggingface_hub.errors import HfHubHTTPError

    said = str(error)
    if isinstance(error, HfHubHTTPError):
        said = f"it answers {error.response.status_code}, {error.server_message or error.response.reason_phrase}"
    return (said.strip().splitlines() or [type(error).__name__])[0]
