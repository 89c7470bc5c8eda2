"""`callboard` and `python -m service`."""

from service.cli.main import callboard


def main() -> None:
    """Run the command line."""
    callboard(prog_name="callboard")


if __name__ == "__main__":
    main()
