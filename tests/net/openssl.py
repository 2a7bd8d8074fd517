"""The openssl command, for what Python's own TLS cannot be made to do."""

from __future__ import annotations

import os
import shutil

import pytest


def openssl_command() -> str:
    """Its path; without it the test is skipped, and fails with CI=true."""
    found = shutil.which("openssl")
    if found is None:
        message = "the openssl command is missing (apt-get install openssl)"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return found
