"""People and places of France."""

from __future__ import annotations

from ehrsim.fhir.locales.locale import City, Locale, NumberRange

_FEMALE = """Adeline Adèle Agathe Agnès Aïcha Alexandra Alice Aliénor Aline Alix Amandine Ambre Amélie Amina Anaïs
Andrée Angèle Angélique Anna Annabelle Anne Annick Annie Apolline Ariane Arlette Armelle Assia Aude Audrey Aurélie
Aurore Axelle Babette Bernadette Berthe Béatrice Bénédicte Blanche Brigitte Camille Capucine Carine Carole Caroline
Catherine Cécile Céleste Célia Céline Chantal Charlène Charlotte Chloé Christelle Christiane Christine Claire Clara
Clarisse Claudine Clémence Clémentine Clothilde Colette Coline Constance Coralie Corinne Danielle Daphné Delphine
Denise Diane Djamila Dominique Dorothée Edith Eléonore Eliane Elisa Elisabeth Elise Ella Elodie Eloïse Elsa Emeline
Emilie Emma Emmanuelle Estelle Esther Eugénie Eva Evelyne Fabienne Fanny Fatima Fatou Faustine Flavie Fleur Flora
Florence Floriane France Françoise Frédérique Gabrielle Gaëlle Geneviève Georgette Germaine Ghislaine Gilberte
Ginette Gisèle Henriette Hélène Héloïse Hortense Huguette Inès Irène Iris Isabelle Jacqueline Jade Janine Jeanne
Jeannine Jessica Joëlle Josette Joséphine Josiane Judith Julia Julie Juliette Justine Karima Karine Khadija Laetitia
Laura Laure Laurence Laurette Leïla Léa Lénaïg Léonie Lila Liliane Lina Lise Loïse Lola Lou Louise Louna Lucie
Lucienne Lucile Ludivine Lydie Madeleine Maéva Maëlle Maëlys Magali Manon Marceline Margaux Margot Marguerite Maria
Marianne Marie Mariette Marine Marion Marjorie Marlène Marthe Martine Maryse Mathilde Maud Maya Mélanie Mélissa
Micheline Michèle Mireille Monique Morgane Muriel Myriam Nadège Nadia Nadine Naïma Natacha Nathalie Nicole Nina
Ninon Noémie Nora Océane Odette Odile Olga Olivia Ophélie Pascale Paulette Pauline Perrine Rachel Raymonde Renée
Régine Romane Rose Roxane Sabine Sabrina Salomé Samia Sandra Sandrine Sarah Séverine Sidonie Simone Sofia Solange
Solène Soline Sophie Stéphanie Suzanne Sylvie Thérèse Tiphaine Valentine Valérie Vanessa Véronique Victoire Violette
Virginie Viviane Yasmine Yolande Yvette Yvonne Zoé""".split()  # noqa: SIM905
_MALE = """Abdel Abel Achille Adam Adrien Ahmed Aimé Alain Alban Albert Alexandre Alexis Alfred Ali Aloïs Alphonse
Amaury Amine Anatole André Ange Antoine Antonin Aristide Armand Arnaud Arsène Arthur Aubin Auguste Augustin Aurélien
Axel Aymeric Baptiste Barnabé Basile Bastien Benjamin Benoît Bernard Bertrand Bilal Blaise Boris Brice Bruno Calixte
Casimir Cédric Célestin César Charles Christian Christophe Claude Clément Clovis Colin Constant Corentin Cyprien
Cyril Cyrille Damien Daniel David Denis Didier Dimitri Dorian Edgar Edmond Edouard Elias Elie Eliott Emile Emilien
Emmanuel Enzo Eric Ernest Esteban Ethan Etienne Eugène Evan Fabien Fabrice Ferdinand Fernand Félicien Félix Firmin
Florent Florian Florimond Franck François Frédéric Gabin Gabriel Gaétan Gaël Gaspard Gaston Gautier Geoffroy Georges
Germain Gérald Gérard Gilbert Gilles Grégoire Grégory Guillaume Gustave Guy Hakim Hamza Hassan Hector Henri Hervé
Hippolyte Honoré Hubert Hugo Hugues Ibrahim Idriss Isaac Ismaël Ivan Jacques Jean Jérémie Jérémy Jérôme Joachim Joël
Jonathan Jordan Joris Joseph Joshua Jules Julien Karim Kévin Kylian Laurent Lazare Léandre Léo Léon Léonard Léopold
Lilian Loïc Lorenzo Louis Luc Lucas Lucien Ludovic Maël Malo Mamadou Marc Marceau Marcel Marius Martial Martin
Mathias Mathieu Matteo Maurice Maxence Maxime Maximilien Mehdi Médéric Michel Mickaël Milan Mohamed Moussa Nabil
Nathan Nicolas Noah Noé Noël Norbert Octave Olivier Omar Oscar Pascal Patrice Patrick Paul Philippe Pierre Prosper
Quentin Rachid Raoul Raphaël Raymond Renaud René Régis Rémi Rémy Richard Robert Robin Rodolphe Roger Roland Romain
Romuald Ruben Sacha Samir Samuel Serge Sébastien Simon Stanislas Stéphane Sylvain Tanguy Théo Théodore Théophile
Thibault Thierry Thomas Timothée Titouan Tom Tristan Ulysse Urbain Valentin Valère Victor Victorien Vincent Virgile
Vivien Wassim William Xavier Yanis Yann Yannick Yves Yvon Zacharie""".split()  # noqa: SIM905
_FAMILY = """Adam Albert Alexandre Allard Andre Antoine Arnaud Arnould Aubert Aubry Auger Bailly Barbe Barbier Baron
Barre Barthelemy Bataille Baudry Bazin Beaumont Becker Bellanger Benard Benoit Berger Bernard Berthelot Bertin
Bertrand Besnard Besson Bigot Billard Blanc Blanchard Blanchet Blin Blondel Blot Bodin Boivin Bonnard Bonneau Bonnet
Bonnin Bouchard Boucher Bouchet Boulanger Boulay Bourdon Bourgeois Bouvet Bouvier Boyer Breton Briand Brun Bruneau
Brunet Buisson Camus Cardon Carlier Caron Carpentier Carre Charles Charpentier Charrier Chauvet Chauvin Chevalier
Chevallier Clement Colas Colin Collet Collin Cordier Cornu Costa Coste Cottin Coulon Courtois Cousin Couturier Cros
Daniel David Delage Delahaye Delannoy Delattre Delaunay Delmas Denis Descamps Deschamps Devaux Diallo Diaz Didier
Diop Dubois Dubreuil Duclos Dufour Duhamel Dumas Dumont Dupont Dupre Dupuis Dupuy Durand Duval Etienne Evrard Fabre
Faivre Faure Favre Fernandez Ferrand Ferreira Ferry Fischer Fleury Fontaine Forest Fortin Fouquet Fournier Francois
Gaillard Gallet Garcia Garnier Gaudin Gauthier Gautier Gay Georges Gerard Germain Gilbert Gillet Girard Giraud
Godard Gomes Gomez Goncalves Gonzalez Gosselin Grandjean Granger Gregoire Grenier Gros Guerin Guichard Guilbert
Guillaume Guillet Guillon Guillot Guyot Hamon Hardy Hebert Henry Herve Hoarau Hubert Huet Hugues Humbert Imbert
Jacob Jacques Jacquet Jacquot Jamet Jean Joly Joubert Jourdan Julien Klein Labbe Lacombe Lacroix Lagarde Lambert
Lamy Langlois Laporte Laurent Laval Leblanc Lebon Lebreton Lebrun Leclerc Leclercq Lecomte Ledoux Leduc Lefebvre
Lefevre Lefort Leger Legrand Legros Lejeune Lelievre Lemaire Lemaitre Lemoine Lenoir Leroux Leroy Lesage Letellier
Levasseur Leveque Levy Loiseau Lopez Louis Lucas Mace Mahe Maillard Maillet Mallet Marchal Marchand Marechal Marie
Marion Martel Martin Martineau Martinet Martinez Marty Mary Masson Mathieu Maurice Maurin Maury Menard Mendes
Mercier Merle Meunier Meyer Michaud Michel Millet Monnier Moreau Morel Moreno Morin Morvan Moulin Muller Nguyen
Nicolas Noel Normand Olivier Ollivier Pages Parent Paris Pascal Pasquier Paul Pelletier Peltier Pereira Perez Perret
Perrier Perrin Perron Perrot Petit Petitjean Philippe Picard Pichon Pierre Pineau Poirier Poisson Pons Potier
Pottier Poulain Poulet Prevost Prost Pruvost Raymond Raynaud Regnier Remy Renard Renaud Renault Rey Reynaud Ribeiro
Richard Riou Riviere Robert Robin Roche Rocher Rodrigues Rodriguez Roger Rolland Rose Rossi Rousseau Roussel Rousset
Roux Roy Royer Ruiz Sabatier Salaun Salmon Samson Sanchez Santos Sauvage Schmitt Schneider Seguin Silva Simon Tanguy
Tardy Tessier Texier Thibault Thierry Thomas Tournier Toussaint Tran Traore Turpin Valentin Vallee Vallet Vasseur
Verdier Vial Vidal Vigneron Vincent Voisin Wagner Weber""".split()  # noqa: SIM905

# Numbers for audiovisual works: Arcep, decision 2018-0881; ten thousand in each of five zones and of mobiles. A city
# has a hundred of those of its zone.
_ZONES = {"1": "01 99 00", "2": "02 61 91", "3": "03 53 01", "4": "04 65 71", "5": "05 36 49"}
_MOBILE = "06 39 98"
_CITIES = """Aix-en-Provence|Bouches-du-Rhône|Provence-Alpes-Côte d'Azur|13090 13100|4
Amiens|Somme|Hauts-de-France|80000 80080|3
Angers|Maine-et-Loire|Pays de la Loire|49000 49100|2
Annecy|Haute-Savoie|Auvergne-Rhône-Alpes|74000|4
Besançon|Doubs|Bourgogne-Franche-Comté|25000|3
Bordeaux|Gironde|Nouvelle-Aquitaine|33000 33100 33800|5
Boulogne-Billancourt|Hauts-de-Seine|Île-de-France|92100|1
Bourges|Cher|Centre-Val de Loire|18000|2
Brest|Finistère|Bretagne|29200|2
Caen|Calvados|Normandie|14000|2
Clermont-Ferrand|Puy-de-Dôme|Auvergne-Rhône-Alpes|63000 63100|4
Créteil|Val-de-Marne|Île-de-France|94000|1
Dijon|Côte-d'Or|Bourgogne-Franche-Comté|21000|3
Grenoble|Isère|Auvergne-Rhône-Alpes|38000 38100|4
La Rochelle|Charente-Maritime|Nouvelle-Aquitaine|17000|5
Le Havre|Seine-Maritime|Normandie|76600 76620|2
Le Mans|Sarthe|Pays de la Loire|72000 72100|2
Lille|Nord|Hauts-de-France|59000 59800|3
Limoges|Haute-Vienne|Nouvelle-Aquitaine|87000 87100|5
Lyon|Rhône|Auvergne-Rhône-Alpes|69001 69003 69006 69007 69008|4
Marseille|Bouches-du-Rhône|Provence-Alpes-Côte d'Azur|13001 13004 13006 13008 13013|4
Metz|Moselle|Grand Est|57000|3
Montpellier|Hérault|Occitanie|34000 34070 34090|4
Montreuil|Seine-Saint-Denis|Île-de-France|93100|1
Mulhouse|Haut-Rhin|Grand Est|68100 68200|3
Nancy|Meurthe-et-Moselle|Grand Est|54000|3
Nantes|Loire-Atlantique|Pays de la Loire|44000 44100 44300|2
Nice|Alpes-Maritimes|Provence-Alpes-Côte d'Azur|06000 06100 06200|4
Nîmes|Gard|Occitanie|30000 30900|4
Orléans|Loiret|Centre-Val de Loire|45000 45100|2
Paris|Paris|Île-de-France|75005 75010 75011 75013 75015 75018 75020|1
Pau|Pyrénées-Atlantiques|Nouvelle-Aquitaine|64000|5
Perpignan|Pyrénées-Orientales|Occitanie|66000 66100|4
Poitiers|Vienne|Nouvelle-Aquitaine|86000|5
Reims|Marne|Grand Est|51100|3
Rennes|Ille-et-Vilaine|Bretagne|35000 35200 35700|2
Rouen|Seine-Maritime|Normandie|76000 76100|2
Saint-Denis|Seine-Saint-Denis|Île-de-France|93200|1
Saint-Étienne|Loire|Auvergne-Rhône-Alpes|42000 42100|4
Strasbourg|Bas-Rhin|Grand Est|67000 67100 67200|3
Toulon|Var|Provence-Alpes-Côte d'Azur|83000 83100|4
Toulouse|Haute-Garonne|Occitanie|31000 31200 31400 31500|5
Tours|Indre-et-Loire|Centre-Val de Loire|37000 37100 37200|2
Versailles|Yvelines|Île-de-France|78000|1"""
_WAYS = ("allée", "avenue", "chemin", "impasse", "place", "rue", "route", "square")
_PLANTS = (
    "Acacias Bleuets Bouleaux Cerisiers Chênes Genêts Lilas Mésanges Noyers Ormes Peupliers Roses Tilleuls Violettes"
)


def _city(number: int, row: str) -> City:
    name, department, region, postal_codes, zone = row.split("|")
    members = {"city": name, "district": department, "state": region}
    return City(members, tuple(postal_codes.split()), NumberRange(f"{_ZONES[zone]} {number:02d} ", 2))


FRANCE = Locale(
    code="fr",
    country="FR",
    language="fr",
    family=tuple(_FAMILY),
    given={"female": tuple(_FEMALE), "male": tuple(_MALE)},
    second_given=60,
    prefixes={"female": ("Mme",), "male": ("M.",)},
    prefixed_before="2005",
    transliteration=str.maketrans(dict(zip("àâäçéèêëîïôöùûüÿ", "aaaceeeeiioouuuy", strict=True))),
    streets=tuple(f"{way} Synthétique des {plant}" for way in _WAYS for plant in _PLANTS.split()),
    line="{house} {street}",
    houses=199,
    cities=tuple(_city(number, row) for number, row in enumerate(_CITIES.splitlines())),
    mobiles=tuple(NumberRange(f"{_MOBILE} {pair:02d} ", 2) for pair in range(100)),
    places=tuple(
        f"Centre de santé synthétique {name}"
        for name in ("Belle Rive", "Bellevue", "des Tilleuls", "du Canal", "du Lac", "du Port", "Mirabelle", "Montjoie")
    ),
)
