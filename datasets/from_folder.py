"""Prepare any folder or zip file of photographs with captions for training.

Captions lie in captions.jsonl or captions.csv, or in a text file beside each picture. docs/data.md describes them.

python datasets/from_folder.py IN OUT --resolution 512 --workers 8
"""

from dreamportrait.cli.data_prepare import make_prepare

main = make_prepare("folder", __doc__)

if __name__ == "__main__":
    main()
