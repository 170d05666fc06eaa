"""Put GraphiQL's published files where the gateway serves them: ``python ide/build.py FOLDER``.

``python ide/build.py --audit`` looks the locked packages up in npm's advisories instead.

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


def main(argument: str) -> None:
    """Install into a folder that is thrown away, and copy what is served to the folder *argument*."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, scratch)
        if argument == "--audit":
            _npm(scratch, "audit")
            return
        target = Path(argument)
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
    # npm reads its own settings from the environment; PATH is there so that it finds its node. Ours, with secrets, stay here.
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith("BILLING_")
    }
    environment["PATH"] = path
    done = subprocess.run([npm, *arguments], cwd=folder, env=environment, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"npm {arguments[0]} ended with code {done.returncode}.")


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
    main(sys.argv[1])
