"What pip needs, read from settings.ini."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
settings = ConfigParser(delimiters=["="])
settings.read(here / "settings.ini", encoding="utf-8")
project = settings["DEFAULT"]

setup(
    version=project["version"],
    description=project["description"],
    keywords=project["keywords"].split(),
    author=project["author"],
    license="Apache-2.0",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["fashion_vae", "fashion_vae.*"]),
    package_data={"fashion_vae": ["*.npz", "*.txt", "*.jinja", "clothing/*"]},
    entry_points={"console_scripts": project["console_scripts"].split()},
    install_requires=project["requirements"].split(),
    extras_require={e: project[f"{e}_requirements"].split() for e in ("photos", "export", "controls", "slurm", "dev")},
)
