"""Tests of who may reach the viewer."""

import pytest

from dreamportrait.viewer.access import check_host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_addresses_of_this_machine_are_allowed(host: str) -> None:
    assert check_host(host, 8080) == host


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org", ""])
def test_other_addresses_are_refused_with_a_way_out(host: str) -> None:
    with pytest.raises(ValueError, match="the viewer has no password") as error:
        check_host(host, 9000)
    assert f"--host {host}:" in str(error.value) and "ssh -N -L 9000:127.0.0.1:9000 " in str(error.value)
