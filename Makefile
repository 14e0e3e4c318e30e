.PHONY: check format docs docs-check coverage hooks
check:
	uv run ruff format --check .
	uv run ruff check .
	uv run pyright
	uv run lint-imports
	uv run ./.ci/dependencies
	$(MAKE) docs-check
	uv run pytest --slow

format:
	uv run ruff format .
	uv run ruff check --fix .

docs:
	uv run --group docs mkdocs serve

docs-check:
	uv run --group docs mkdocs build --strict

coverage:
	uv run pytest --cov --cov-report=term

hooks:
	uvx pre-commit install
