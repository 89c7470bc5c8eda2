# Short names for the commands of CONTRIBUTING.md. Everything works without make too.
.PHONY: help up test check format load compose-up compose-down

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

up: ## the whole service on this machine, with its own Postgres, Valkey and mailbox
	python3 start up

test: ## the test suite
	python3 start test

check: ## everything CI runs
	.ci/run

format: ## put the code in its shape
	python3 start run ruff check --fix .
	python3 start run ruff format .

load: ## a quarter of a minute of load on a running service
	python3 start run locust -f tests/load/locustfile.py --headless -u 20 -r 10 -t 15s

compose-up: ## the same service in containers
	docker compose up --build --wait

compose-down: ## stop the containers and forget their data
	docker compose down --volumes
