import os
import zipfile
from pathlib import Path

import pytest

from lstm_music.corpus.composer_names import composer_of, spellings, words

REPO = Path(__file__).parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))


@pytest.mark.parametrize(
    ("name", "composer"),
    [
        ("albeniz-espana_op_165.mid", "Albéniz"),
        ("bach-bwv001-_400_chorales-003907bv.mid", "Bach"),
        ("Beethoven/Sonata 14.mid", "Beethoven"),
        ("beethoven/opus18no1-movement1.mid", "Beethoven"),
        ("Sonata in C (W.A. Mozart).mid", "Mozart"),
        ("J.S. Bach - Air.mid", "Bach"),
        ("C.P.E. Bach/Solfeggietto.mid", "C.P.E. Bach"),
        ("cpebach/h186.mid", "C.P.E. Bach"),
        ("Bach, Carl Philipp Emanuel, Rondo.mid", "C.P.E. Bach"),
        ("Bach, Johann Sebastian, Partita.mid", "Bach"),
        ("bach846.mid", "Bach"),
        ("schumann_clara/opus17-movement3.mid", "Clara Schumann"),
        ("Clara Schumann - Romance.mid", "Clara Schumann"),
        ("schumann_robert/opus48no2.mid", "Robert Schumann"),
        ("schumann-papillons_op2.mid", "Robert Schumann"),
        ("saint-saens-le_carnaval_des_animaux.mid", "Saint-Saëns"),
        ("Saint-Saëns/Le cygne.mid", "Saint-Saëns"),
        ("Saint-Sae\u0308ns/Le cygne.mid", "Saint-Saëns"),
        ("DVOŘÁK.mid", "Dvořák"),
        ("Lutosławski - Etude.mid", "Lutosławski"),
        ("tchaikovsky/june.mid", "Tchaikovsky"),
        ("tschaikowsky_op37a.mid", "Tchaikovsky"),
        ("chaikovsky-waltz.mid", "Tchaikovsky"),
        ("haendel-allemande.mid", "Handel"),
        ("handel\\rinaldo.mid", "Handel"),
        ("rimsky-korsakov-aria_of_sadko.mid", "Rimsky-Korsakov"),
        ("strauss_j-the_blue_danube_op314.mid", "Johann Strauss"),
        ("trecento/PMFC_24_10-Credo_Ciconia_10.mid", "Ciconia"),
        ("trecento/PMFC_06_Giovanni-07_In_Sulla_Ripa.mid", "Giovanni da Cascia"),
    ],
)
def test_a_name_tells_the_composer(name, composer):
    assert composer_of(name) == composer


@pytest.mark.parametrize(
    "name",
    [
        "",
        "sonata.mid",
        "unknown_artist-a_h-fur_elise.mid",
        "bachelor.mid",
        "Offenbachiade.mid",
        "Hansel und Gretel.mid",
        "mozartkugel/piece.mid",
        "wolfgang.mid",
        "trecento/PMFC_13_10-Gloria.mid",
        "Don Giovanni.mid",
    ],
)
def test_a_part_of_a_word_names_no_one(name):
    assert composer_of(name) is None


@pytest.mark.parametrize(
    ("name", "composer"),
    [
        ("field-nocturne.mid", "Field"),
        ("Field/Nocturne 5.mid", "Field"),
        ("Field - Nocturne 5.mid", "Field"),
        ("John Field Nocturne.mid", "Field"),
        ("in_the_field.mid", None),
        ("field.mid", None),
        ("songs of the field/no 1.mid", None),
        ("german-3_dances_from_henry_viii.mid", "German"),
        ("haydn-german_dance_no1.mid", "Haydn"),
        ("german_dance_no1.mid", None),
        ("unknown_artist-p_z-ros_barber.mid", None),
    ],
)
def test_a_name_that_is_a_word_counts_only_as_a_heading(name, composer):
    assert composer_of(name) == composer


@pytest.mark.parametrize(
    ("name", "composer"),
    [
        ("busoni-busoni_chaconne_bach.mid", "Busoni"),
        ("bach-busoni-chaconne.mid", "Bach"),
        ("rachmaninov/paganini_variations.mid", "Rachmaninov"),
        ("Mozart/Variations on a theme by Gluck.mid", "Mozart"),
        ("classical/Gluck/Mozart.mid", "Gluck"),
        ("Wolf-Ferrari - Intermezzo.mid", "Wolf-Ferrari"),
    ],
)
def test_the_leftmost_and_longest_counts(name, composer):
    assert composer_of(name) == composer


def test_no_spelling_is_two_composers_or_none():
    names, headings = spellings()
    assert () not in names | headings
    assert not names.keys() & headings.keys()
    assert all(
        composer_of(f"{composer}/1.mid") == composer for composer in (names | headings).values()
    )
    every = {tuple(words(composer)) for composer in (names | headings).values()}
    assert len(every) == len(set((names | headings).values()))


@pytest.mark.parametrize("archive", ["bach-417", "classical-2000", "classical-rest"])
def test_the_names_of_a_collection(archive):
    path = DATA / f"{archive}.zip"
    if not path.exists():
        pytest.skip(f"{path.name} is not in LSTM_MUSIC_DATA")
    names = zipfile.ZipFile(path).namelist()
    unnamed = [name for name in names if composer_of(name) is None]
    assert all(name.startswith("unknown_artist") for name in unnamed)
