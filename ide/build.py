"""Put GraphiQL's published files where the gateway serves them: ``python ide/build.py FOLDER``.

npm installs the packages under ``package-lock.json`` (exact versions, integrity hashes); the files are
copied as they were published, nothing is bundled or changed. npm comes from the PATH or, on a machine
without Node, with a wheel of Node.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FILES = {
    "react/umd/react.production.min.js": "react.js",
    "react-dom/umd/react-dom.production.min.js": "react-dom.js",
    "graphiql/graphiql.min.js": "graphiql.js",
    "graphiql/graphiql.min.css": "graphiql.css",
    "@graphiql/plugin-explorer/dist/index.umd.js": "explorer.js",
    "@graphiql/plugin-explorer/dist/style.css": "explorer.css",
    "graphql-ws/umd/graphql-ws.min.js": "graphql-ws.js",
}


def main(target: Path) -> None:
    """Install into a folder that is thrown away, copy what is served to *target*."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, scratch)
        _npm(scratch, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        target.mkdir(parents=True, exist_ok=True)
        for source, name in FILES.items():
            shutil.copy(scratch / "node_modules" / source, target / name)
    (target / ".ready").touch()


def _npm(folder: Path, *arguments: str) -> None:
    path = os.environ.get("PATH", "")
    npm = shutil.which("npm", path=path)
    if npm is None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{path}"
        npm = shutil.which("npm", path=path) or _npm_of_a_wheel(path)
    # npm reads its own settings from the environment; PATH is there so that it finds its node.
    subprocess.run([npm, *arguments], cwd=folder, env={**os.environ, "PATH": path}, check=True)  # noqa: S603


def _npm_of_a_wheel(path: str) -> str:
    print("There is no npm here; taking a wheel of Node (60 MB, once) …", flush=True)
    subprocess.run(  # noqa: S603
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--require-hashes",
            "-r",
            str(HERE / "requirements.txt"),
        ],
        check=True,
    )
    found = shutil.which("npm", path=path)
    if found is None:
        raise SystemExit(
            "The wheel of Node brought no npm; install Node.js 20 or newer and try again."
        )
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
