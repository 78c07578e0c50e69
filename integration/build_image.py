"""`make image`: the product's image as `stargate:latest`, for the compose file and to look around in."""

import docker

from integration.harness.image import product_image

CALL_LIMIT_S = 600


def main() -> None:
    """Build it if need be, and tag it."""
    client = docker.from_env(timeout=CALL_LIMIT_S)
    try:
        built = product_image(client)
        client.images.get(built).tag("stargate", "latest")
        print(f"stargate:latest is {built}")
    finally:
        client.close()


if __name__ == "__main__":
    main()
