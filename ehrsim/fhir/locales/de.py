"""People and places of Germany, in the elements that the German base profiles have."""

from __future__ import annotations

from ehrsim.fhir.locales.check_digits import insured_person
from ehrsim.fhir.locales.locale import City, Locale, NationalNumber, NumberRange

_FEMALE = """Adelheid Agathe Agnes Aleksandra Alexandra Alina Alma Amelie Amina Anastasia Andrea Angela Angelika
Anita Anja Anke Anna Annalena Anne Annegret Annelie Annemarie Annette Annika Antje Antonia Astrid Ayla Aylin Ayse
Barbara Beate Beatrix Berta Bettina Bianca Birgit Birte Brigitte Britta Brunhilde Carina Carla Carola Caroline
Charlotte Chiara Christa Christel Christiane Christina Christine Clara Claudia Constanze Cordula Cornelia Dagmar
Dana Daniela Denise Diana Dilara Dominika Dora Doris Dorothea Edeltraud Edith Elena Elfriede Elif Elisa Elisabeth
Elke Ella Ellen Elsa Else Emilia Emine Emma Erika Erna Esra Esther Eva Evelyn Fatma Felicitas Finja Franziska Frauke
Frida Friederike Gabriele Gerda Gerlinde Gertrud Gesa Gisela Greta Gudrun Hanna Hannelore Hatice Hedwig Heidemarie
Heidi Heike Helena Helene Helga Henriette Herta Hilde Hildegard Ida Ilona Ilse Imke Ina Ines Inga Inge Ingeborg
Ingrid Inka Irene Irina Iris Irma Irmgard Isabell Jana Janina Jasmin Jennifer Jessica Johanna Josefine Julia Juliane
Jutta Karin Karla Karoline Katarina Katharina Kathrin Katja Kerstin Kira Klara Kristin Lara Larissa Laura Lea Lena
Leni Leonie Leyla Liesel Lieselotte Lilli Lina Linda Lisa Lotte Louisa Lucia Luise Luna Lydia Madita Magda Magdalena
Maike Maja Malin Manuela Mara Mareike Margarete Margit Margot Maria Marianne Marie Marina Marion Marlene Marta
Martina Mathilda Mechthild Meike Melanie Melina Melissa Merle Meryem Mia Michaela Milena Mira Miriam Monika Nadine
Nadja Natalia Nele Nicole Nina Nora Olga Ottilie Patricia Paula Pauline Petra Pia Ramona Rebecca Regina Renate
Ricarda Rita Ronja Rosa Rosemarie Roswitha Ruth Sabine Sabrina Samira Sandra Sara Selina Sibylle Sigrid Silke Silvia
Simone Sina Sofia Sonja Sophie Stefanie Susanne Svenja Sylvia Tamara Tanja Tatjana Thea Theresa Tina Traute Ulrike
Ursula Ute Valentina Vanessa Vera Verena Veronika Viktoria Viola Vivien Walburga Waltraud Wiebke Wilma Yasemin
Yvonne Zeynep""".split()  # noqa: SIM905
_MALE = """Achim Adam Adrian Ahmet Albert Albrecht Alexander Alfons Alfred Ali Andreas Anton Armin Arne Arnold Artur
August Axel Benedikt Benjamin Bernd Bernhard Berthold Björn Bodo Boris Bruno Burkhard Carl Carsten Christian
Christoph Clemens Cornelius Daniel David Deniz Dennis Detlef Dieter Diethelm Dietmar Dietrich Dirk Dominik Eberhard
Eckhard Edgar Edmund Eduard Egon Elias Emil Emre Enno Erhard Erich Erik Ernst Erwin Eugen Ewald Fabian Felix
Ferdinand Finn Florian Frank Franz Frederik Friedhelm Friedrich Fritz Georg Gerald Gerd Gerhard Gernot Gero
Gottfried Gregor Guido Gunnar Gustav Günter Hakan Hannes Hans Harald Hartmut Hasan Hauke Heiko Heiner Heinrich Heinz
Helge Helmut Hendrik Henning Henrik Henry Herbert Hermann Hinrich Holger Horst Hubert Hugo Ibrahim Ingo Ismail Ivan
Jakob Jan Janis Jannik Jens Joachim Johann Johannes Jonas Jonathan Josef Jörg Jörn Julian Julius Justus Jürgen Kai
Karl Karsten Kaspar Kemal Kevin Kilian Klaus Konrad Konstantin Korbinian Kurt Lars Lasse Laurenz Lennart Leo Leon
Leonhard Leopold Levin Linus Lorenz Lothar Luca Ludwig Luis Lukas Lutz Magnus Malte Manfred Manuel Marc Marcel Marco
Mario Marius Marko Markus Marten Martin Marvin Matteo Matthias Mattis Max Maximilian Mehmet Michael Mika Milan
Moritz Murat Mustafa Nico Niels Niklas Nikolaus Nils Noah Norbert Olaf Ole Oliver Oskar Oswald Ottmar Otto Pascal
Patrick Paul Peer Peter Philipp Piet Rafael Raimund Rainer Ralf Ralph Raphael Reiner Reinhard Reinhold René Richard
Robert Robin Roland Rolf Roman Ruben Rudolf Rupert Rüdiger Samuel Sascha Sebastian Selim Siegfried Sigmund Silas
Simon Sinan Sönke Stefan Steffen Stephan Sven Theo Theodor Thilo Thomas Thorben Thorsten Til Tilman Tim Timo Tobias
Tom Torben Torsten Udo Ulf Ulrich Uwe Valentin Veit Viktor Vincent Vinzenz Volker Walter Werner Wilfried Wilhelm
Willi Winfried Wolf Wolfgang Wolfram Xaver Yannick Yusuf""".split()  # noqa: SIM905
_FAMILY = """Achterberg Ackermann Adam Adler Ahlers Ahrens Albers Albrecht Altmann Amann Anders Angermann Appel
Arend Arndt Arnold Arslan Aydin Bach Bachmann Bader Baier Bartels Barth Bauer Baumann Baumgartner Bayer Beck Becker
Beckmann Behrendt Behrens Beier Bender Berger Bergmann Bernhardt Beyer Binder Bischoff Blank Blum Bock Bode Bolz
Born Böhm Böhme Böttcher Brand Brandt Braun Breuer Brinkmann Brunner Bruns Brückner Buchholz Buck Budde Burger
Burkhardt Busch Bühler Büttner Celik Christ Conrad Cordes Dahl Daniel Demir Dietrich Dietz Dittrich Dorn Döring
Dreyer Eberle Ebert Eckert Eder Ehlers Eichhorn Eller Engel Engelhardt Erdmann Ernst Esser Ewald Falk Feldmann
Fiedler Fink Fischer Fleischer Forster Förster Frank Franke Franz Freitag Frey Friedrich Fritsch Fritz Frommer
Fröhlich Fuchs Funk Gabriel Gebhardt Geier Geiger Gerber Gerlach Giese Glaser Götz Graf Greiner Grimm Groß Grosse
Großmann Gruber Grünewald Günther Haag Haas Hagemann Hahn Hamann Hammer Hanke Hansen Harms Hartmann Hartwig Haupt
Hauser Heck Heil Heim Hein Heine Heinemann Heinrich Heinz Held Heller Hellwig Henke Hennig Hentschel Herbst Hermann
Herold Herrmann Herzog Hess Heuer Hildebrandt Hinz Hirsch Hofer Hoffmann Hofmann Holz Hoppe Horn Horstmann Huber
Hummel Hübner Jacob Jacobs Jahn Jansen Janssen Jäger John Jordan Jost Jung Junker Kaiser Kaminski Karl Kaufmann Kaya
Keil Keller Kern Kessler Kiefer Kilic Kirchner Klaus Klein Klemm Klinger Klose Knoll Koch Kolb Konrad Kopp Köhler
König Körner Kraft Kramer Kraus Krause Krämer Krebs Kremer Krieger Kröger Krug Kruse Krüger Kuhn Kunz Kunze Kurz
Kühn Kühne Lang Lange Langer Lehmann Lenz Linden Lindner Link Linke Lohmann Lorenz Ludwig Lutz Mai Maier Mann
Marquardt Martens Martin Marx Mayer Mayr Meier Meißner Menzel Merkel Mertens Merz Metz Metzger Meyer Michel Mohr
Moser Möller Müller Naumann Neubauer Neumann Nickel Niemann Noack Nolte Nowak Oswald Otto Öztürk Pape Paul Pauli
Peters Petersen Pfeffer Pfeifer Pfeiffer Philipp Pohl Popp Preuß Probst Raabe Rau Rauch Reich Reichert Reimann
Reimer Reinhardt Reiter Renner Reuter Richter Riedel Rieger Ritter Rohde Rose Roth Rothe Röder Römer Rösch Rösler
Rudolph Ruf Runge Sahin Sander Sauer Sauter Schaaf Schade Scharf Schäfer Schäffer Scheffler Schenk Scherer Schiller
Schilling Schindler Schlegel Schlüter Schmid Schmidt Schmitt Schmitz Schneider Scholz Schön Schöne Schramm Schreiber
Schreiner Schröder Schröter Schubert Schuler Schulte Schultz Schulz Schulze Schumacher Schumann Schuster Schütte
Schütz Schwab Schwarz Schwarze Schweizer Seidel Seifert Seitz Siebert Siegel Simon Singer Sommer Sonntag Späth
Springer Stadler Stahl Stark Steffen Stein Steinbach Steiner Stephan Stock Stoll Straub Strauß Strobel Stumpf Sturm
Süß Thiel Thiele Thomas Trautmann Uhl Uhlig Ullrich Ulrich Unger Urban Vetter Vogel Vogt Voigt Volk Vollmer Voß
Wagner Wahl Walter Walther Weber Wegener Wegner Weidner Weigel Weis Weiß Wendt Wenzel Werner Westphal Wetzel Wieland
Wiese Wilhelm Wilke Will Wimmer Winkler Winter Wirth Witt Witte Wittmann Wolf Wolff Wolter Wulf Wunderlich Yildirim
Yildiz Yilmaz Zander Ziegler Zimmer Zimmermann""".split()  # noqa: SIM905

# Numbers for media: Bundesnetzagentur, Mitteilung 148/2021 (Amtsblatt 7/2021); a thousand in each of five networks.
_NETWORKS = {
    "Berlin": NumberRange("030 23125", 3),
    "Frankfurt am Main": NumberRange("069 90009", 3),
    "Hamburg": NumberRange("040 66969", 3),
    "Köln": NumberRange("0221 4710", 3),
    "München": NumberRange("089 99998", 3),
}
# The state by its code in ISO 3166-2, and the city whose network lends its numbers.
_CITIES = """Augsburg|DE-BY|86150 86152 86159|München
Berlin|DE-BE|10115 10243 10405 10827 12043 12163 13347 13597|Berlin
Bielefeld|DE-NW|33602 33615|Köln
Bonn|DE-NW|53111 53123|Köln
Bremen|DE-HB|28195 28203 28215|Hamburg
Bremerhaven|DE-HB|27568 27570|Hamburg
Chemnitz|DE-SN|09111 09112|Berlin
Dortmund|DE-NW|44135 44139 44225|Köln
Dresden|DE-SN|01067 01099 01307|Berlin
Düsseldorf|DE-NW|40210 40227 40476|Köln
Erfurt|DE-TH|99084 99089|Frankfurt am Main
Essen|DE-NW|45127 45130 45257|Köln
Flensburg|DE-SH|24937 24939|Hamburg
Frankfurt am Main|DE-HE|60311 60316 60487 60596|Frankfurt am Main
Freiburg im Breisgau|DE-BW|79098 79102 79115|Frankfurt am Main
Halle (Saale)|DE-ST|06108 06112|Berlin
Hamburg|DE-HH|20095 20257 20535 21073 22083 22765|Hamburg
Hannover|DE-NI|30159 30163 30451|Hamburg
Heidelberg|DE-BW|69115 69120|Frankfurt am Main
Jena|DE-TH|07743 07745|Frankfurt am Main
Karlsruhe|DE-BW|76131 76137|Frankfurt am Main
Kassel|DE-HE|34117 34121|Frankfurt am Main
Kiel|DE-SH|24103 24116|Hamburg
Koblenz|DE-RP|56068 56073|Frankfurt am Main
Köln|DE-NW|50667 50733 50823 51103|Köln
Leipzig|DE-SN|04103 04109 04177 04277|Berlin
Lübeck|DE-SH|23552 23558|Hamburg
Magdeburg|DE-ST|39104 39108|Berlin
Mainz|DE-RP|55116 55118|Frankfurt am Main
Mannheim|DE-BW|68159 68161|Frankfurt am Main
München|DE-BY|80331 80469 80637 81371 81541 81667|München
Münster|DE-NW|48143 48145|Köln
Nürnberg|DE-BY|90402 90408 90461|München
Oldenburg|DE-NI|26121 26123|Hamburg
Osnabrück|DE-NI|49074 49080|Hamburg
Potsdam|DE-BB|14467 14473|Berlin
Cottbus|DE-BB|03042 03046|Berlin
Regensburg|DE-BY|93047 93049|München
Rostock|DE-MV|18055 18057|Hamburg
Saarbrücken|DE-SL|66111 66117|Frankfurt am Main
Schwerin|DE-MV|19053 19055|Hamburg
Stuttgart|DE-BW|70173 70178 70197 70372|München
Trier|DE-RP|54290 54292|Frankfurt am Main
Ulm|DE-BW|89073 89075|München
Wuppertal|DE-NW|42103 42115|Köln
Würzburg|DE-BY|97070 97072|München"""
_TREES = (
    "Ahorn Birken Buchen Eichen Erlen Eschen Fichten Flieder Hasel Kastanien Kiefern Linden Rosen Tannen Ulmen Weiden"
)


def _city(row: str) -> City:
    name, state, postal_codes, network = row.split("|")
    return City({"city": name, "state": state}, tuple(postal_codes.split()), _NETWORKS[network])


def insured_person_number(position: int) -> str:
    """A Krankenversichertennummer that begins X110, as those of gematik's test cards do (gemSpec_TK_FD)."""
    value = f"X110{position:05d}"
    return f"{value}{insured_person(value)}"


GERMANY = Locale(
    code="de",
    country="DE",
    language="de",
    family=tuple(_FAMILY),
    given={"female": tuple(_FEMALE), "male": tuple(_MALE)},
    second_given=35,
    prefixes=dict.fromkeys(("female", "male"), ("Dr.", *[""] * 59)),
    prefix_qualifier="AC",
    prefixed_before="1995",
    transliteration=str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "é": "e"}),
    streets=tuple(
        f"{word} {tree}{way}"
        for tree in _TREES.split()
        for word, way in (
            ("Synthetische", "straße"),
            ("Synthetische", "allee"),
            ("Synthetische", "gasse"),
            ("Synthetischer", "weg"),
            ("Synthetischer", "platz"),
            ("Synthetischer", "ring"),
        )
    ),
    line="{street} {house}",
    houses=199,
    line_parts=True,
    cities=tuple(_city(row) for row in _CITIES.splitlines()),
    mobiles=(NumberRange("0171 39200", 2), NumberRange("0176 040690", 2)),
    national_number=NationalNumber(
        system="http://fhir.de/sid/gkv/kvid-10",
        type={
            "coding": [
                {
                    "system": "http://fhir.de/CodeSystem/identifier-type-de-basis",
                    "code": "KVZ10",
                    "display": "Krankenversichertennummer",
                }
            ]
        },
        size=100_000,
        value=insured_person_number,
    ),
    other_gender={
        "extension": [
            {
                "url": "http://fhir.de/StructureDefinition/gender-amtlich-de",
                "valueCoding": {
                    "system": "http://fhir.de/CodeSystem/gender-amtlich-de",
                    "code": "D",
                    "display": "divers",
                },
            }
        ]
    },
    places=tuple(
        f"Synthetisches Gesundheitszentrum {name}"
        for name in ("Ahornhof", "Am Hafen", "Am Ring", "Bergblick", "Buchenau", "Lindenpark", "Seeufer", "Sonnenhof")
    ),
)
