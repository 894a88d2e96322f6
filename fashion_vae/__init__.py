"A VAE for rare classes (Park 2021): `fashion_vae.predict` classifies a photo with a saved model."

__version__ = "0.1.0"


def __getattr__(name: str):
    "`fashion_vae.predict`, without importing torch before it is used."
    if name == "predict":
        from fashion_vae.lib.models import predict

        return predict
    raise AttributeError(f"module 'fashion_vae' has no attribute {name!r}")
