"""An object store that fails: what passes is lived through, what stays is told."""

import pytest
from faulty_s3 import Fault, faulty
from pydantic import ValidationError

from soundguide.errors import StoreUnavailable
from soundguide.storage import Storage, StorageConfig
from soundguide.validation import describe


@pytest.mark.s3
@pytest.mark.parametrize("fault", ["500", "503", "drop", "cut"])
def test_passing_faults_of_s3_are_lived_through(s3: Storage, fault: Fault) -> None:
    with faulty(s3) as (faults, storage):
        faults.strike(fault, "", "")
        for count in range(3):
            uri = f"s3://bucket/faults/{fault}/{count}"
            storage.write_bytes(uri, bytes([count]) * 5000)
            assert storage.read_bytes(uri) == bytes([count]) * 5000 and storage.exists(uri)
        assert len(storage.list(f"s3://bucket/faults/{fault}")) == 3
        assert faults.met[fault] >= 3


@pytest.mark.s3
def test_an_answer_that_takes_too_long_is_asked_for_again(s3: Storage) -> None:
    with faulty(s3) as (faults, storage):
        hasty = Storage(storage.config.model_copy(update={"timeout_seconds": 0.5}))
        faults.strike("slow", "", "", "")
        hasty.write_bytes("s3://bucket/faults/slow", b"x")
        assert hasty.read_bytes("s3://bucket/faults/slow") == b"x" and faults.met["slow"] >= 1


@pytest.mark.s3
@pytest.mark.parametrize(
    ("fault", "act"), [("500", "exists"), ("500", "read_bytes"), ("500", "list"), ("drop", "read_bytes")]
)
def test_a_store_that_never_answers_stops_the_program_with_a_reason(s3: Storage, fault: Fault, act: str) -> None:
    with faulty(s3) as (faults, storage):
        impatient = Storage(storage.config.model_copy(update={"max_attempts": 2}))
        faults.strike(fault)
        with pytest.raises(StoreUnavailable, match="s3://bucket/key cannot be reached.*max_attempts"):
            getattr(impatient, act)("s3://bucket/key")
        if fault == "500":  # a dropped connection is tried much longer
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                impatient.write_bytes("s3://bucket/key", b"x")


def test_nobody_at_the_address_is_said_so() -> None:
    config = StorageConfig(endpoint_url="http://127.0.0.1:1", region="eu-central-1", max_attempts=2)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        Storage(config).read_bytes("s3://bucket/key")


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValidationError, match="endpoint_url holds") as refused:
        StorageConfig(endpoint_url="https://me:hunter2@store.example")
    assert "hunter2" not in describe(refused.value, "arguments", of=StorageConfig)
