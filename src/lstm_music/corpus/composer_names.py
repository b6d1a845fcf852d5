"""Which composer a file's name names."""

import re
import unicodedata
from functools import cache

# Composers parted by semicolons; other spellings of a name behind its colon. A spelling with a star
# is also a word or a forename, and counts only as a heading (see composer_of).
TABLE = """
Adam: *adam, adolphe adam; Adams: *adams, john adams; Albéniz; Albinoni; Alkan; Allegri;
Ambroise: *ambroise; Arcadelt; Arensky; Arndt; Arne: *arne, thomas arne, arne thomas; Auber;
Bacewicz: bacewitz; Bach;
C.P.E. Bach: c p e bach, cpe bach, cpebach, bach cpe, bach c p e, carl philipp emanuel bach, bach
carl philipp emanuel;
J.C. Bach: j c bach, jc bach, bach jc, bach j c, johann christian bach, bach johann christian;
W.F. Bach: w f bach, wf bach, bach wf, bach w f, wilhelm friedemann bach, bach wilhelm friedemann;
Balakirev: balakirew; Barber: *barber, samuel barber; Bartelet; Bartók; Bax;
Beach: *beach, amy beach, beach amy, h h a beach; Becker; Beethoven: bethoven; Bellini;
Berg: *berg, alban berg, berg alban; Berio; Berlin: *berlin, irving berlin; Berlioz; Bernstein;
Biber; Bizet; Bliss: *bliss, arthur bliss; Bloch; Boccherini; Borodin: borodine; Boulanger; Boyce;
Brahms; Bridge: *bridge, frank bridge; Britten; Bruch; Bruckner; Bull: *bull, john bull;
Burgmüller: burgmueller; Busoni; Büsser: buesser; Buxtehude: buxehude, buxethude; Byrd; Caccini;
Cage: *cage, john cage; Campra; Carulli; Castelnuovo-Tedesco; Cavalli; Chabrier; Chaminade;
Charpentier; Chasins; Chausson; Chopin: szopen; Ciconia: pmfc 24; Cimarosa;
Clarke: *clarke, jeremiah clarke; Clementi; Coates; Coleridge-Taylor; Cons: *cons; Copland;
Corelli; Couperin; Louis Couperin: couperin louis; Cramer; Cui: *cui, cesar cui; Czerny; Czibulka;
Dandrieu; Daquin; Debussy; Delibes; Delius; Diabelli; Donizetti; Dowland; Dufay: du fay; Dukas;
Duparc; Dupré; Auguste Durand: durand ma, durand auguste; Émile Durand: durand e, durand emile;
Dussek: dusek; Dvořák; Elgar; Enescu: enesco; Falla: de falla; Farrenc; Fauré; Fibich;
Field: *field, john field, field john; Finck; Flotow; Foster: *foster, stephen foster; Franck;
Frescobaldi; Friedman; Froberger; Fučík: fucick; Gabrieli; Gade; Ganne; Geminiani;
German: *german, edward german; Gershwin; Gesualdo; Gherardello; Gibbons; Ginastera;
Giovanni da Cascia: pmfc 06 giovanni, giovanni da firenze; Giuliani; Glass: *glass, philip glass;
Glazunov: glasunow, glazounov; Glière; Glinka; Gluck; Godowsky; Gossec; Gottschalk; Gounod;
Grainger; Granados; Graupner; Grieg; Griffes; Grofé; Guilmant; Halévy; Handel: haendel, hendel;
Hasse; Haydn; Michael Haydn: haydn michael, johann michael haydn; Heidrich; Heller; Hemery;
Henselt; Hérold; Hiller; Hindemith; Holst; M. Holst: holst m; Honegger; Hummel; Humperdinck;
Ibert; D'Indy: indy vincent d; Ippolitov-Ivanov; Ireland: *ireland, john ireland;
Isaac: *isaac, heinrich isaac; Ivanovici; Ives; Jacopo da Bologna: pmfc 06 jacopo; Jakobowski;
Janáček; Janequin; Jensen; J.R. Johnson: johnson j r, j rosamond johnson; Joplin;
Josquin: des prez, desprez, despres; Kabalevsky: kabalewsky; Kálmán;
Khachaturian: chatschaturjan, khatchaturian; Kodály; Komzák; Korngold; Kreisler; Kuhlau; Kuhnau;
Lachner; Lalo; Landini: landino, pmfc 04; Lange: *lange, gustav lange;
Lassus: di lasso, orlando lasso; Laurent: *laurent; Lavallée; Le Thière; Leclair; Lecuona; Lehár;
Lemire; Leoncavallo; Liadov: lyadov, ljadow; Ligeti; Liliuokalani: lili uokalani; Liszt: listz;
Locatelli; Loewe; Luca: *luca; Lully; Lusitano; Lutosławski; Lyapunov;
Macbeth: *macbeth, allan macbeth; MacCunn: mccunn; MacDowell: mcdowell; Machaut; Mahler; Maier;
Marais; Marcello; Marenzio; Martini: *martini, padre martini; Martinů; Mascagni; Massenet;
Medtner: metner; Méhul; Mendelssohn: mendelsonn, mendelsohn, mendelson, bartholdy;
Fanny Mendelssohn: mendelssohn fanny, fanny hensel, hensel fanny, fanny mendelssohn hensel;
Mercadante; Messiaen; Meyerbeer; Milhaud; Mompou; Monteverdi; Morales; Morel; Morley; Moscheles;
Moszkowski; Mozart; Leopold Mozart: mozart leopold;
Mussorgsky: mussorgski, moussorgsky, musorgsky, mussorgskij;
Nicolai: *nicolai, otto nicolai, nicolai otto; Nielsen; Obrecht; Ockeghem; Offenbach; Orff;
Pachelbel: pachebel, pachbel; Paderewski; Paganini; Paisiello; Palestrina; Paradisi: paradies;
Parry; Pärt; Pergolesi; Peri: *peri, jacopo peri; Peterson-Berger; Piazzolla;
Piero: *piero, pmfc 06 piero; Pleyel; Pollen: *pollen; Ponce; Ponchielli; Poulenc; Praetorius;
Price: *price, florence price; Pridham: pridhan; Prokofiev: prokofieff, prokofjew, prokofjev;
Puccini; Purcell; Quantz; Rachmaninov: rachmaninoff, rachmaninow, rachmaninof, rakhmaninov; Raff;
Rameau; Ravel; Reger; Reich: *reich, steve reich; Reinecke; Resch; Respighi; Rheinberger;
Rimsky-Korsakov: rimski korsakov, rimskij korsakov, rimsky, korsakov, korsakoff;
Rodrigo: *rodrigo, joaquin rodrigo; Rossini; Rothchild; Rubinstein; Saint-Saëns: saintsaens;
Salieri; Sammartini; Sarasate; Satie; Scarlatti; Alessandro Scarlatti: scarlatti alessandro;
Scheidt; Schoenberg: schonberg; Schubert; Clara Schumann: schumann clara, clara wieck;
Robert Schumann: schumann robert, schumann, schuman; Schütz: schuetz;
Scriabin: skriabin, scriabine, skrjabin, skryabin;
Shostakovich: schostakowitsch, chostakovitch, shostakovitch; Sibelius; Sinding; Smetana; Soler;
Sor: *sor, fernando sor; Sousa; Spohr; Stainer; Stamitz;
Stanford: *stanford, charles villiers stanford; Stockhausen; Stradella; Oscar Straus: straus;
Strauss; Johann Strauss: strauss j, j strauss, strauss johann, johann strauss ii;
Richard Strauss: strauss richard, r strauss, strauss r;
Stravinsky: strawinsky, stravinski, strawinski; Sudds; Sullivan: *sullivan, arthur sullivan;
Suppé: von suppe; Sweelinck; Swinstead; Szymanowski; Tallis; Tárrega; Tartini; Taube; Tavener;
Taverner;
Tchaikovsky: tchaikowsky, tschaikowsky, tschaikovsky, chaikovsky, chaikowsky, tchaikovski,
tchaikowski, tschaikowski, tchaikofsky, cajkovskij, ciaikovski; Tchakoff; Telemann; Thalberg;
Thomas: *thomas, ambroise thomas, thomas ambroise; Tosti; Turina; Varèse;
Vaughan Williams: *vaughan; Verdi; Victoria: *victoria, tomas luis de victoria; Vierne;
Vieuxtemps; Villa-Lobos; Viotti; Vitali; Vitry: pmfc 01; Vivaldi; Wagner; Waldteufel; Walton;
Warlock: *warlock, peter warlock; Weber: von weber; Webern; Weelkes; Weill; Weiss; Widor;
Wieniawski; Willaert; Wolf: *wolf, hugo wolf, wolf hugo; Wolf-Ferrari; Ysaÿe; Zelenka; Zemlinsky;
Zipoli
"""
UNDECOMPOSED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i"})


def composer_of(name: str) -> str | None:
    """Return the composer that a file's path inside a corpus names, None where it names none.

    Compared are whole words, without case and accents; all that is neither letter nor digit parts
    them, and letters part from digits (`bach846` names Bach). Of several composers the leftmost
    counts (`busoni-chaconne_bach` is Busoni's), and of names that start together the longest.
    Names that are also words, such as Field or German, count only where they are all of a
    folder's name or of what stands before a file's or folder's first hyphen (`field-nocturne.mid`;
    not `haydn_german_dance.mid`), or with a forename.
    """
    names, headings = spellings()
    longest = max(map(len, names))
    *folders, file = re.split(r"[/\\]", name)
    for part in (*folders, file):
        found = words(part)
        title, hyphen, _ = part.partition("-")
        heading = len(words(title)) if hyphen or part is not file else 0
        for start in range(len(found)):
            for length in range(longest, 0, -1):
                spelling = tuple(found[start : start + length])
                composer = names.get(spelling)
                if composer is None and start == 0 and length == heading:
                    composer = headings.get(spelling)
                if composer:
                    return composer
    return None


def words(text: str) -> list[str]:
    """Return the words and numbers in a text, in small letters without accents."""
    plain = unicodedata.normalize("NFKD", text.casefold().translate(UNDECOMPOSED))
    return re.findall(r"[a-z]+|[0-9]+", "".join(c for c in plain if not unicodedata.combining(c)))


@cache
def spellings() -> tuple[dict[tuple[str, ...], str], dict[tuple[str, ...], str]]:
    """Return the composers by the words of a spelling: that counts anywhere, or only as heading."""
    names: dict[tuple[str, ...], str] = {}
    headings: dict[tuple[str, ...], str] = {}
    for entry in TABLE.split(";"):
        composer, *others = (" ".join(spelling.split()) for spelling in re.split("[:,]", entry))
        starred = {tuple(words(other)) for other in others if other.startswith("*")}
        headings |= dict.fromkeys(starred, composer)
        for spelling in (composer, *others):
            if tuple(words(spelling)) not in starred:
                names[tuple(words(spelling))] = composer
    return names, headings
