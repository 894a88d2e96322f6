"A VAE for rare classes (Park 2021): `fashion_vae.predict` classifies photos with a saved model."

__version__ = "0.1.0"


def __getattr__(name: str):
    "`fashion_vae.predict` and `fashion_vae.export_onnx`, without importing torch before they are used."
    if name == "predict":
        from fashion_vae.lib.models import predict

        return predict
    if name == "export_onnx":
        from fashion_vae.lib.export import export_onnx

        return export_onnx
    raise AttributeError(f"module 'fashion_vae' has no attribute {name!r}")
