"""``python -m lit_vae.tools`` is ``lit-vae``, with the Python that it names."""

from lit_vae.tools import main

if __name__ == "__main__":
    main()
