"""Sign-in: right and wrong passwords, throttling over processes, sessions that end, admins out at once."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from briefly_admin.domain.errors import InvalidRequest, NotAllowed, NotAuthenticated, NotFound, Refused, TooManyRequests
from briefly_admin.domain.permissions import Role
from briefly_admin.services import throttling
from briefly_admin.services.sessions import hash_of
from tests.services.conftest import PASSWORD, Stage


def _sign_in(stage: Stage, email: str = "ana@example.com", password: str = PASSWORD, address: str = "127.0.0.1") -> str:
    return stage.services.sessions.sign_in(email, password, address=address, agent="Firefox\0" * 99).session_token


def test_the_right_password_makes_a_session_that_only_the_cookie_knows(stage: Stage) -> None:
    token = _sign_in(stage, " ANA@example.com ")
    session = stage.services.sessions.resolve(token, touch=True, address="127.0.0.1")
    assert session is not None
    assert (session.actor.name, session.actor.role, session.idle_left_seconds) == ("ana@example.com", Role.ADMIN, 1800)
    with psycopg.connect(stage.app_url) as connection:
        dump = str(connection.execute("SELECT * FROM briefly_admin.session, briefly_admin.admin").fetchall())
    assert token not in dump
    assert PASSWORD not in dump
    assert stage.actions()[-1] == "admin.sign_in"


def test_wrong_credentials_get_one_answer(stage: Stage) -> None:
    cases = [
        ("ana@example.com", "wrong"),
        ("stranger@example.org", PASSWORD),
        ("", ""),
        ("a\0b", "\0"),
        ("\ud800", "\ud800"),
    ]
    for email, password in cases:
        with pytest.raises(NotAuthenticated, match="The e-mail or the password is not right"):
            _sign_in(stage, email, password)
        assert stage.actions()[-1] == "admin.sign_in_failed"
        assert email not in {event.object for event in stage.services.audit.list(stage.ana)}


def test_an_unknown_account_takes_as_long(stage: Stage) -> None:
    def seconds(email: str) -> float:
        began = time.process_time()
        with pytest.raises(NotAuthenticated):
            _sign_in(stage, email, "wrong", address=email)
        return time.process_time() - began

    known = statistics.median(seconds("ana@example.com") for _ in range(3))
    unknown = statistics.median(seconds(f"nobody{n}@example.com") for n in range(3))
    assert 0.5 < unknown / known < 2


def test_tries_slow_down_and_are_let_in_later(stage: Stage) -> None:
    for _ in range(throttling.FREE_ACCOUNT + 1):
        with pytest.raises(NotAuthenticated):
            _sign_in(stage, password="wrong")
    waits = []
    for _ in range(3):
        with pytest.raises(TooManyRequests) as caught:
            _sign_in(stage)
        waits.append(caught.value.retry_after)
        stage.clock.move(seconds=caught.value.retry_after)
        with pytest.raises(NotAuthenticated):
            _sign_in(stage, password="wrong")
    assert waits == [1, 2, 4]
    stage.clock.move(seconds=throttling.LONGEST)
    assert _sign_in(stage)
    with pytest.raises(NotAuthenticated):
        _sign_in(stage, password="wrong")


def test_one_address_trying_many_accounts_is_slowed_down_others_are_not(stage: Stage) -> None:
    throttle = stage.services.sessions._throttle
    for number in range(throttling.FREE_ADDRESS + 1):
        throttle.count(f"user{number}@example.com", "203.0.113.9")
    with pytest.raises(TooManyRequests):
        throttle.count("another@example.com", "203.0.113.9")
    throttle.count("another@example.com", "198.51.100.7")


def test_tries_at_once_do_not_slip_through(stage: Stage) -> None:
    def attempt(_: int) -> bool:
        try:
            stage.services.sessions._throttle.count("ana@example.com", "203.0.113.9")
        except TooManyRequests:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(attempt, range(100)))
    assert taken == throttling.FREE_ACCOUNT + 1


def test_a_session_ends_when_idle_and_polls_do_not_keep_it(stage: Stage) -> None:
    sessions, token = stage.services.sessions, _sign_in(stage)
    for _ in range(3):
        stage.clock.move(minutes=9)
        assert sessions.resolve(token, touch=False, address="")
    stage.clock.move(minutes=4)
    assert sessions.resolve(token, touch=True, address="") is None
    assert sessions.list(stage.ana) == ()


def test_a_session_ends_after_twelve_hours_however_busy(stage: Stage) -> None:
    sessions, token = stage.services.sessions, _sign_in(stage)
    for _ in range(24):
        stage.clock.move(minutes=29)
        assert sessions.resolve(token, touch=True, address="")
    stage.clock.move(minutes=25)
    assert sessions.resolve(token, touch=True, address="") is None
    with pytest.raises(NotAuthenticated):
        sessions.rotate(token)


def test_rotated_signed_out_and_revoked_tokens_are_dead(stage: Stage) -> None:
    sessions, token = stage.services.sessions, _sign_in(stage)
    new = sessions.rotate(token)
    assert sessions.resolve(token, touch=True, address="") is None
    assert sessions.resolve(new, touch=True, address="")
    sessions.sign_out(new)
    assert sessions.resolve(new, touch=True, address="") is None
    third = _sign_in(stage)
    with pytest.raises(NotAllowed):
        sessions.revoke(stage.vito, hash_of(third))
    sessions.revoke(stage.ana, hash_of(third))
    assert sessions.resolve(third, touch=True, address="") is None
    with pytest.raises(NotFound):
        sessions.revoke(stage.ana, hash_of(third))


def test_a_disabled_admin_is_out_at_once(stage: Stage) -> None:
    token = _sign_in(stage, "olga@example.com")
    bearer, _ = stage.services.tokens.create(stage.olga, name="ci", role="operator")
    with pytest.raises(NotAllowed):
        stage.services.admins.disable(stage.olga, stage.vito.admin_id or "")
    assert stage.services.admins.disable(stage.ana, stage.olga.admin_id or "").disabled
    assert stage.services.sessions.resolve(token, touch=True, address="") is None
    assert stage.services.tokens.resolve(bearer, "") is None
    with pytest.raises(NotAuthenticated):
        _sign_in(stage, "olga@example.com")
    stage.services.admins.enable(stage.ana, stage.olga.admin_id or "")
    assert _sign_in(stage, "olga@example.com")


def test_the_last_admin_stays(stage: Stage) -> None:
    admins, ana = stage.services.admins, stage.ana.admin_id or ""
    with pytest.raises(Refused, match="last admin"):
        admins.disable(stage.ana, ana)
    with pytest.raises(Refused, match="last admin"):
        admins.set_role(stage.ana, ana, "viewer")
    admins.set_role(stage.ana, stage.olga.admin_id or "", Role.ADMIN)
    assert admins.disable(stage.ana, ana).disabled


def test_people_are_made_with_good_passwords_and_new_emails(stage: Stage) -> None:
    admins = stage.services.admins
    for bad in ("short", "a" * 20, "x" * 2000):
        with pytest.raises(InvalidRequest) as caught:
            admins.create(stage.ana, "eve@example.com", "viewer", bad)
        assert list(caught.value.details) == ["password"]
    for email in ("", "eve", "a b@example.com", "a\0@example.com"):
        with pytest.raises(InvalidRequest):
            admins.create(stage.ana, email, "viewer", PASSWORD)
    with pytest.raises(InvalidRequest, match="role"):
        admins.create(stage.ana, "eve@example.com", "king", PASSWORD)
    with pytest.raises(Refused, match="already"):
        admins.create(stage.ana, "OLGA@example.com", "viewer", PASSWORD)
    with pytest.raises(NotAllowed):
        admins.create(stage.olga, "eve@example.com", "viewer", PASSWORD)
    assert admins.create(stage.ana, "eve@example.com", "viewer", PASSWORD).role is Role.VIEWER
    assert admins.ensure_first("boss@example.com", None) is None
    assert len(admins.list(stage.ana)) == 4


def test_a_new_password_needs_the_old_one_and_ends_sessions(stage: Stage) -> None:
    admins, mine, here = stage.services.admins, stage.olga.admin_id or "", _sign_in(stage, "olga@example.com")
    there = _sign_in(stage, "olga@example.com")
    new = "another long pass phrase"
    with pytest.raises(NotAuthenticated):
        admins.set_password(stage.olga, mine, new, current="wrong")
    with pytest.raises(NotAllowed):
        admins.set_password(stage.olga, stage.ana.admin_id or "", new)
    with pytest.raises(NotFound):
        admins.set_password(stage.ana, "no uuid", new)
    for spelt in ((stage.ana.admin_id or "").upper(), f"{{{stage.ana.admin_id}}}"):
        with pytest.raises(NotFound):
            admins.set_password(stage.ana, spelt, new)  # one's own, and without the current one
    admins.set_password(stage.olga, mine, new, current=PASSWORD, keep=hash_of(here))
    assert stage.services.sessions.resolve(here, touch=True, address="")
    assert stage.services.sessions.resolve(there, touch=True, address="") is None
    assert _sign_in(stage, "olga@example.com", new)


def test_tokens_are_shown_once_expire_and_never_exceed_their_owner(stage: Stage) -> None:
    tokens = stage.services.tokens
    with pytest.raises(NotAllowed, match="higher"):
        tokens.create(stage.olga, name="ci", role="admin")
    for days in (0, 367, True):
        with pytest.raises(InvalidRequest):
            tokens.create(stage.olga, name="ci", role="viewer", expires_in_days=days)
    with pytest.raises(InvalidRequest):
        tokens.create(stage.olga, name=" \n", role="viewer")
    bearer, view = tokens.create(stage.olga, name="ci", role="operator", expires_in_days=1)
    assert bearer.startswith("bra_")
    with psycopg.connect(stage.app_url) as connection:
        assert bearer not in str(connection.execute("SELECT * FROM briefly_admin.token").fetchall())
    actor = tokens.resolve(bearer, "198.51.100.7")
    assert actor is not None
    assert (actor.role, actor.via) == (Role.OPERATOR, "api")
    assert tokens.resolve(bearer + "x", "") is None
    assert [t.name for t in tokens.list(stage.ana)] == ["ci"]
    assert tokens.list(stage.vito) == ()
    stage.services.admins.set_role(stage.ana, stage.olga.admin_id or "", "viewer")
    demoted = tokens.resolve(bearer, "")
    assert demoted is not None
    assert demoted.role is Role.VIEWER
    with pytest.raises(NotAllowed):
        tokens.revoke(stage.vito, view.id)
    stage.clock.move(days=1)
    assert tokens.resolve(bearer, "") is None
    assert tokens.list(stage.ana)[0].expired
    tokens.revoke(stage.ana, view.id)
    with pytest.raises(NotFound):
        tokens.revoke(stage.ana, view.id)
