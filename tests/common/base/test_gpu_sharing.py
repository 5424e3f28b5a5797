"""The service by which processes share a GPU: started before them, ended after them, and done without where it does not work."""

import os
from pathlib import Path

import pytest

from common.base import gpu_sharing
from common.base.gpu_sharing import CONTROL, LOGS, PIPES, shared_gpu


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A program in the service's place that writes down how it was called, and fails where a file `broken` lies beside it."""
    program = tmp_path / CONTROL
    program.write_text(
        f'#!/bin/sh\ncd {tmp_path}\n[ -e broken ] && echo "no device" >&2 && exit 1\n'
        f'words=$(cat)\necho "$* $words" >> calls\n[ -d "${PIPES}" ] && [ -d "${LOGS}" ] && echo places >> calls\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(PIPES, raising=False)
    monkeypatch.setattr(gpu_sharing, "PROBE", "")
    return tmp_path


def calls(service: Path) -> list[str]:
    return [line.strip() for line in (service / "calls").read_text().splitlines()]


def test_it_is_there_for_the_processes_inside_and_ended_afterwards(service):
    with shared_gpu() as is_shared:
        assert is_shared
        assert Path(os.environ[PIPES]).is_dir()
        assert Path(os.environ[LOGS]).is_dir()
        assert calls(service) == ["-d", "places"]
    assert PIPES not in os.environ
    assert LOGS not in os.environ
    assert calls(service) == ["-d", "places", "quit", "places"]


def test_it_is_ended_after_an_error_too(service):
    with pytest.raises(KeyError), shared_gpu():
        raise KeyError
    assert "quit" in calls(service)
    assert PIPES not in os.environ


def test_a_service_that_serves_nobody_is_done_without(service, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(gpu_sharing, "PROBE", "raise SystemExit('cannot connect')")
    with shared_gpu() as is_shared:
        assert not is_shared
        assert PIPES not in os.environ
    assert "cannot connect): the processes take turns" in caplog.text
    assert "quit" in calls(service)


def test_a_service_that_does_not_start_is_done_without(service, caplog):
    caplog.set_level("INFO")
    (service / "broken").touch()
    with shared_gpu() as is_shared:
        assert not is_shared
    assert "no device" in caplog.text


def test_one_that_runs_already_is_used(service, monkeypatch):
    monkeypatch.setenv(PIPES, "/somewhere")
    with shared_gpu() as is_shared:
        assert is_shared
        assert os.environ[PIPES] == "/somewhere"
    assert os.environ[PIPES] == "/somewhere"
    assert not (service / "calls").exists()


def test_without_it_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(PIPES, raising=False)
    with shared_gpu() as is_shared:
        assert not is_shared
