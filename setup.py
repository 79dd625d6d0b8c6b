"""Metadata of the distribution, and what travels in the wheel beside the package.

models/, templates/ and matrix.yaml lie at the top of the checkout, where people look for them. A wheel
carries them as ``zoo_bench/_bundled/``, so that an empty folder with zoo-bench installed is a working zoo. An
editable installation does not: there `zoo_bench.workspace.bundled_root` is the checkout itself.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGES = ROOT / "bench"
BUNDLED = ("models", "templates", "matrix.yaml")
# What writes to where models are published; a folder needs none of it.
PUBLISHING = {"s3": ["s3fs>=2024.6"], "hf": ["huggingface_hub>=1"]}
EXPORTING = {"parquet": ["pyarrow>=17"]}
# What submits cells to a Slurm cluster; nobody else needs it.
CLUSTER = {"slurm": ["submitit>=1.5"]}
NOT_BUNDLED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


class BuildWithBundle(build_py):
    """Builds the package and copies BUNDLED into it."""

    def run(self) -> None:
        """Build, then copy; an editable installation has nothing to copy."""
        super().run()
        if not self.editable_mode:
            self._bundle(Path(self.build_lib) / "zoo_bench" / "_bundled")

    def _bundle(self, target: Path) -> None:
        if target.exists():  # left by an earlier build, with files that may be gone since
            shutil.rmtree(target)
        target.mkdir(parents=True)
        for name in BUNDLED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=NOT_BUNDLED)
            else:
                shutil.copy2(source, target / name)


def _version() -> str:
    tree = ast.parse((PACKAGES / "zoo_bench" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise SystemExit("bench/zoo_bench/__init__.py does not set __version__")


setup(
    name="zoo-bench",
    version=_version(),
    description="Makes a detection model zoo's table the output of a program",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: System :: Benchmark",
    ],
    keywords=["object detection", "model zoo", "benchmark", "COCO"],
    python_requires=">=3.10",
    package_dir={"": "bench"},
    packages=find_packages("bench"),
    package_data={"zoo_bench": ["references/*/*.yaml"]},
    cmdclass={"build_py": BuildWithBundle},
    entry_points={"console_scripts": ["zoo-bench = zoo_bench.cli:main"]},
    install_requires=[
        "filelock>=3.12",
        "fsspec>=2024.6",
        "hotcoco>=1.3",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "msgspec>=0.20",
        "numpy>=1.26",
        "nvidia-ml-py>=12.550.52",
        "pillow>=10",
        "plotly>=6",
        "plotext>=5.3,<6",
        "psutil>=5.9",
        "py-spy>=0.4",
        "pycocotools>=2.0.7",
        "pydantic>=2.7",
        "PyYAML>=6",
        "rich>=13.7",
        "ruptures>=1.1.9",
        "tabulate>=0.9",
        "tsdownsample>=0.1.3",
        "typer>=0.12",
        "uv>=0.5",
    ],
    extras_require={
        **PUBLISHING,
        **EXPORTING,
        **CLUSTER,
        "dev": [
            *(package for packages in (PUBLISHING | EXPORTING | CLUSTER).values() for package in packages),
            "build>=1.2",
            "check-jsonschema>=0.33",
            "flask>=3",
            "flask-cors>=5",
            "hypothesis>=6.100",
            "model-index>=0.1.11",
            "moto[s3]>=5",
            "mypy>=1.15",
            "playwright>=1.50",
            "pre-commit>=3.7",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "ruff>=0.15",
            "types-psutil",
            "types-PyYAML",
            "types-setuptools",
            "types-tabulate",
            "vermin>=1.6",
        ],
    },
)
