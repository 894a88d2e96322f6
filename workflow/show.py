"Print the tables that a grid has left."

import os
from pathlib import Path

from fashion_vae.store import Split

named = {"dataset": "DATA", "root": "ROOT", "csv": "CSV", "protocol": "PROTOCOL"}
given = {name: value for name, v in named.items() if (value := os.environ.get(f"FASHION_VAE_{v}"))}
for name in ("remedies", "table2", "findings"):
    path = Path("figures", Split(**given).name, f"{name}.md")
    if path.is_file():
        print(path.read_text(encoding="utf-8"))
