"""Prepare CelebAText-HQ for training.

IN holds CelebAimg/ (the pictures of CelebAMask-HQ; CelebA-HQ-img/ is found, too), captions/ with a text file of up to
ten captions per picture, and data_flist/train.flist and test.flist, as its authors publish it. Without the lists, the
hash of a picture's name decides about its split.

python datasets/celeba_text_hq.py CelebAText-HQ data/celebatext_hq --workers 8 --largest-face
"""

from dreamportrait.cli.data_prepare import make_prepare

main = make_prepare("celeba-text-hq", __doc__)

if __name__ == "__main__":
    main()
