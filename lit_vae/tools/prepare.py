"""Fetching pretrained weights where there is internet, for nodes that have none."""


def prepare(names: list[str]) -> None:
    """Fetch pretrained weights into torch hub's cache (TORCH_HOME), where trainings look for them.

    Args:
        names: vgg16, alexnet (for LPIPS), inception (for the FID).
    """
    import torch

    from lit_vae.features.weights import PUBLISHED, cache_path, find

    if unknown := [name for name in names if name not in PUBLISHED]:
        raise ValueError(f"lit-vae prepare: there are no weights {', '.join(unknown)}. Give of {', '.join(PUBLISHED)}.")
    for name in names:
        published, path = PUBLISHED[name], cache_path(name)
        try:
            find(name)
            did = "is there already"
        except ValueError:  # not there, or damaged
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(published.url, str(path), hash_prefix=published.sha256_prefix)
            except (OSError, RuntimeError) as error:  # no internet, or another file
                raise ValueError(
                    f"lit-vae prepare {name}: {published.url} could not be fetched ({error}). Fetch it elsewhere, and"
                    f" put it at {path}."
                ) from error
            did = "fetched"
        print(f"{name}: {did}: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
