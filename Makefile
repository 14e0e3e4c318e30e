.PHONY: check format coverage
check:
	uv run ruff format --check .
	uv run ruff check .
	uv run pyright
	uv run lint-imports
	uv run ./.ci/dependencies
	uv run pytest

format:
	uv run ruff format .
	uv run ruff check --fix .
