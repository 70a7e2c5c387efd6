"""Prepare FFHQ-Text for training or evaluation.

IN holds Image/ (760 pictures of FFHQ), Text/ with nine captions per picture, and the lists Train and Test of file
names, as its authors send it. Pickled lists are read without executing them. Without the lists, the hash of a
picture's name decides about its split.

python datasets/ffhq_text.py FFHQ-Text data/ffhq_text --workers 8
"""

from dreamportrait.cli.data_prepare import make_prepare

main = make_prepare("ffhq-text", __doc__)

if __name__ == "__main__":
    main()
