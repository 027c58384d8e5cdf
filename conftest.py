"""Loads the harness's pytest plugin, and nothing more."""

pytest_plugins = ["harness.plugin"]
