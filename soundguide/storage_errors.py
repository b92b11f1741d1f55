"""What systems and S3 raise about files, as errors that name the place and the remedy."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from soundguide.errors import InvalidConfig, OutputConflict, SourceNotFound, StoreUnavailable

_UNWRITABLE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
}


@contextmanager
def writing(uri: str) -> Iterator[None]:
    """Turn what the system raises about a place that cannot be written into OutputConflict."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _UNWRITABLE:
            raise
        reason, remedy = exc.strerror or str(exc), "Name another place for the output"
        if exc.errno in (errno.EEXIST, errno.ENOTDIR):
            reason = "a file stands where a folder is needed"
        elif exc.errno == errno.EISDIR:
            reason = "it is a folder"
        elif exc.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Make room, and give the same command again: what is done is kept"
        raise OutputConflict(f"{uri} cannot be written: {reason}. {remedy}") from exc


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn what the system and S3 raise about `uri` into SourceNotFound, and about credentials into InvalidConfig."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise SourceNotFound(f"{uri} does not exist; check the spelling and the folder it is relative to") from exc
    except PermissionError as exc:
        raise SourceNotFound(f"{uri} may not be accessed ({exc}); check its permissions or the credentials") from exc
    except IsADirectoryError as exc:
        raise SourceNotFound(f"{uri} is a folder; name one file inside it") from exc
    except OSError as exc:
        if exc.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            raise SourceNotFound(f"{uri} is no name that the store takes ({exc}); give a valid one") from exc
        if not _is_s3(uri):
            raise  # a full disk is not the row's fault
        raise _unavailable(uri, exc) from exc
    except _credential_errors(uri) as exc:
        raise InvalidConfig(
            f"{uri} cannot be reached on S3 ({exc}); set the credentials, a profile, or anonymous access"
        ) from exc
    except _connection_errors(uri) as exc:
        raise _unavailable(uri, exc) from exc


def _is_s3(uri: str) -> bool:
    return uri.lower().startswith("s3://")


def _unavailable(uri: str, exc: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"{uri} cannot be reached, whatever was tried ({exc}). What is done is kept: give the same command again when "
        "the store answers, or raise storage.max_attempts"
    )


def _credential_errors(uri: str) -> tuple[type[Exception], ...]:
    if not _is_s3(uri):
        return ()  # botocore is slow to import, and not needed for local files
    from botocore.exceptions import NoCredentialsError, ProfileNotFound

    return NoCredentialsError, ProfileNotFound


def _connection_errors(uri: str) -> tuple[type[Exception], ...]:
    if not _is_s3(uri):
        return ()
    from aiohttp import ClientError
    from botocore.exceptions import ConnectionError, HTTPClientError

    return ClientError, ConnectionError, HTTPClientError
