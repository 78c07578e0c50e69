"""`make image`: the product's image as `stargate:latest`, and what to do with it."""

import docker

from integration.compose_tool import COMPOSE_FILE, compose_tool
from integration.harness.image import PRODUCT, built_image

CALL_LIMIT_S = 600


def main() -> None:
    """Build it if need be, tag it, and print how to try it with the compose that is here."""
    print("building the image; the first time this takes a minute or two ...", flush=True)
    client = docker.from_env(timeout=CALL_LIMIT_S)
    try:
        built = built_image(client, PRODUCT)
        client.images.get(built).tag("stargate", "latest")
    finally:
        client.close()
    print(f"stargate:latest is {built}. A pair to try (the head of the file says more):")
    print(f"  {' '.join(compose_tool())} -f {COMPOSE_FILE} up --detach")


if __name__ == "__main__":
    main()
