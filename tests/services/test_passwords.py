"""What a password's hash costs, and that a guess costs the same whether the account exists or not."""

import pytest
from argon2 import Type, extract_parameters

from briefly_admin.domain.errors import InvalidRequest
from briefly_admin.services import passwords
from briefly_admin.services.passwords import hash_password, matches, outdated
from tests.services.conftest import PASSWORD


def test_a_hash_is_argon2id_of_64_mib_and_two_rounds(password_hash: str) -> None:
    parameters = extract_parameters(password_hash)
    assert (parameters.type, parameters.memory_cost, parameters.time_cost) == (Type.ID, 64 * 1024, 2)
    assert not outdated(password_hash)
    assert outdated(password_hash.replace("t=2", "t=1"))


def test_who_does_not_exist_costs_the_same_work(password_hash: str) -> None:
    assert extract_parameters(passwords._DUMMY) == extract_parameters(password_hash)
    assert not matches(None, PASSWORD)


def test_only_the_password_matches(password_hash: str) -> None:
    assert matches(password_hash, PASSWORD)
    assert not matches(password_hash, PASSWORD + " ")
    assert not matches("no hash at all", PASSWORD)


@pytest.mark.parametrize(
    ("password", "fault"), [("x" * 14, "at least 15"), ("ab" * 20, "too few"), ("abcde" * 250, "at most")]
)
def test_a_weak_password_is_not_hashed(password: str, fault: str) -> None:
    with pytest.raises(InvalidRequest, match=fault):
        hash_password(password)
