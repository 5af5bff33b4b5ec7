"""What MkDocs is told beyond mkdocs.yml: pages lie anywhere in the repository, and the notebook is one of them."""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SHOWN = ("*.md", "CITATION.cff", "docs/**/*", "sweeps/*", "benchmarks/*.md", "examples/*", "results/**/*")
"""What is part of the site, under its path in the repository: links between files then hold in both."""
HIDDEN = {".pyc", ".ipynb", ".safetensors"}


def on_files(files: Files, *, config: Any) -> Files:
    """The pages and what they link to, in place of those of one folder; the theme's own files stay."""
    kept = [file for file in files if file.src_dir != config.docs_dir]
    paths = sorted({path for pattern in SHOWN for path in ROOT.glob(pattern)})
    for path in paths:
        if path.is_file() and path.suffix not in HIDDEN and path != Path(__file__):
            kept.append(File(str(path.relative_to(ROOT)), str(ROOT), config.site_dir, config.use_directory_urls))
    text = notebook_as_markdown(ROOT / "docs" / "notebook.ipynb")
    return Files([*kept, File.generated(config, "docs/notebook.md", content=text)])


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links to a folder lead to its README.md, as in a repository browser; those to the notebook to its page."""
    folder = (ROOT / page.file.src_uri).parent

    def linked(found: re.Match[str]) -> str:
        return f"]({found[1].rstrip('/')}/README.md)" if (folder / found[1]).is_dir() else found[0]

    return re.sub(r"\]\(([^)#:]+)\)", linked, markdown).replace("notebook.ipynb)", "notebook.md)")


def notebook_as_markdown(path: Path) -> str:
    """The cells of a notebook, its pictures inline."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = "".join(data["image/png"]).replace("\n", "")
                parts.append(f'<img alt="what the cell above draws" src="data:image/png;base64,{picture}">')
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
