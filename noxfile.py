"""The tests with each Python that is declared: `nox`; with one of them, `nox -s tests-3.13`."""

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
OPTIONS = ("-n", "2", "--dist", "worksteal", "-m", "not slow")


@nox.session(python=nox.project.python_versions(PROJECT))
def tests(session: nox.Session) -> None:
    """Run the tests, or those that are named behind `--`, in an environment of their own."""
    session.install("--constraint", ".ci/constraints.txt", "-e", ".[test]")
    session.run("pytest", *OPTIONS, *session.posargs)
