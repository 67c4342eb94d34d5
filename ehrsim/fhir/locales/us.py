"""People and places of the United States."""

from __future__ import annotations

from typing import Any

from ehrsim.fhir.locales.check_digits import luhn
from ehrsim.fhir.locales.locale import City, Locale, NumberRange

_FEMALE = """Abigail Ada Adela Adriana Agnes Aisha Alana Alejandra Alice Alicia Alma Alyssa Amanda Amber Amelia
Amina Amy Ana Andrea Angela Anita Ann Annette April Ariana Ashley Audrey Aurora Autumn Ava Barbara Beatrice
Bernadette Beth Beverly Bianca Bonnie Brenda Bridget Brittany Camila Candace Carla Carmen Carol Caroline Cassandra
Catherine Cecilia Celeste Charlotte Cheryl Chloe Christina Claire Clara Claudia Colleen Cora Courtney Crystal
Cynthia Daisy Dalia Dana Danielle Daphne Deborah Delia Delores Denise Diana Diane Dolores Donna Dorothy Ebony Edith
Eileen Elaine Eleanor Elena Eliza Elizabeth Ella Ellen Elsa Emilia Emily Emma Erica Erin Esperanza Esther Ethel Eva
Evelyn Faith Fatima Felicia Fiona Florence Frances Gabriela Gail Genevieve Gina Gloria Grace Gwendolyn Hannah
Harriet Hazel Heather Heidi Helen Holly Ida Imani Ingrid Irene Iris Isabel Ivy Jacqueline Jada Jane Janet Janice
Jasmine Jean Jennifer Jessica Jill Joan Joanna Josefina Joyce Juanita Judith Julia Karen Katherine Kathleen Kayla
Keiko Kelly Kimberly Krystal Laura Leah Leila Lena Leslie Lillian Linda Lois Lorraine Lucia Lucy Mabel Madison
Marcia Margaret Maria Marilyn Marisol Martha Maya Mei Melissa Mercedes Michelle Mildred Monica Nadia Nancy Naomi
Natalie Nicole Nina Noemi Norma Olga Olivia Pamela Patricia Paula Penelope Phyllis Priya Rachel Rebecca Renee Rosa
Ruth Samantha Sandra Sarah Sharon Sofia Stella Susan Sylvia Tamara Teresa Thea Theresa Tiffany Uma Valerie Vanessa
Vera Victoria Vivian Wanda Wendy Ximena Yara Yolanda Yvonne Zelda Zoe""".split()  # noqa: SIM905
_MALE = """Aaron Abdul Abraham Adam Adrian Ahmed Alan Albert Alejandro Alex Alfonso Alfred Allen Alvin Amir Andre
Andrew Andy Angelo Anthony Antonio Armando Arnold Arthur Austin Barry Benjamin Bernard Bilal Boris Bradley Brandon
Brian Bruce Bryan Byron Caleb Calvin Cameron Carl Carlos Cedric Cesar Chad Charles Chester Christian Christopher
Clarence Clayton Clifford Clyde Cody Cole Colin Corey Craig Curtis Cyrus Dale Damon Daniel Darnell Darren David Dean
Dennis Derek Devin Diego Dominic Donald Douglas Duane Dustin Dwayne Dylan Earl Eddie Edgar Eduardo Edward Edwin Eli
Elijah Elmer Emil Emilio Enrique Eric Ernest Ethan Eugene Evan Fabian Felix Fernando Floyd Francis Frank Franklin
Frederick Gabriel Garrett Gary Gavin George Gerald Gilbert Glenn Gordon Grant Gregory Guillermo Gustavo Harold
Harrison Harvey Hassan Hector Henry Herman Howard Hugo Ian Ibrahim Isaac Ismael Ivan Jack Jacob Jaime Jamal James
Jared Jason Javier Jeffrey Jeremy Jerome Jesse Joel John Jonathan Jorge Jose Joseph Joshua Juan Julian Justin Keith
Kenji Kenneth Kevin Kurt Kyle Lance Larry Lawrence Leon Leonard Leroy Lester Lewis Logan Lorenzo Louis Lucas Luis
Malik Manuel Marcus Mario Mark Marshall Martin Marvin Mason Matthew Maurice Max Melvin Michael Miguel Mitchell
Nathan Neil Nicholas Noah Norman Omar Orlando Oscar Owen Pablo Patrick Paul Pedro Peter Philip Quentin Rafael Ramon
Raymond Reginald Ricardo Richard Robert Roberto Rodney Roger Roland Ronald Roy Ruben Russell Ryan Salvador Samuel
Scott Sean Sergio Seth Simon Stanley Stephen Steven Stuart Tariq Terrence Theodore Thomas Timothy Todd Travis Trevor
Tyler Vernon Victor Vincent Wade Walter Warren Wayne Wesley Xavier Zachary""".split()  # noqa: SIM905
_FAMILY = """Abbott Acosta Adams Adkins Aguilar Alexander Allen Alvarado Alvarez Anderson Andrews Armstrong Arnold
Atkins Austin Avila Bailey Baker Baldwin Ballard Banks Barber Barlow Barnes Barnett Barrett Bates Beck Bell Bender
Bennett Benson Berg Bishop Black Blackwell Blair Blake Blevins Bowen Bowman Boyd Bradford Bradley Brady Brewer
Briggs Brooks Brown Bryant Buchanan Burgess Burke Burns Burton Butler Byrd Cabrera Calderon Caldwell Campbell Campos
Cannon Cardenas Carlson Carpenter Carr Carrillo Carroll Carter Castillo Castro Cervantes Chan Chandler Chang Chapman
Chavez Chen Choi Christensen Clark Cohen Cole Coleman Collins Contreras Cook Cooper Cortez Cox Craig Crawford Cruz
Cummings Cunningham Curry Curtis Dalton Daniels Davidson Davis Dawson Delgado Diaz Dixon Dominguez Douglas Doyle
Duncan Dunn Duran Edwards Elliott Ellis Espinoza Estrada Evans Farley Farrell Ferguson Fernandez Fields Figueroa
Fischer Fisher Fleming Fletcher Flores Flynn Ford Foster Fox Francis Franklin Frazier Freeman French Fuentes Fuller
Garcia Gardner Garrett Garza George Gibson Gilbert Gill Glover Goldberg Gomez Gonzalez Goodman Gordon Graham Grant
Graves Gray Green Greene Greer Griffin Guerrero Gupta Gutierrez Guzman Haddad Hale Hall Hamilton Hammond Hansen
Hanson Hardy Harmon Harper Harris Harrison Hart Harvey Hawkins Hayes Henderson Henry Hernandez Herrera Hicks Higgins
Hill Hoffman Holland Holmes Horton Houston Howard Howell Hubbard Hudson Hughes Hunt Hunter Ibarra Jackson Jacobs
James Jenkins Jennings Jensen Jimenez Johnson Johnston Jones Jordan Joseph Juarez Kaur Keller Kelley Kelly Kennedy
Khan Kim King Klein Knight Kowalski Kramer Lambert Larsen Larson Lawrence Lawson Leblanc Lee Leonard Lewis Lindsey
Liu Logan Long Lopez Lowe Lucas Luna Lynch Mack Maldonado Mann Marsh Marshall Martin Martinez Mason Matthews Maxwell
May McCarthy McCoy McDonald McKinney Medina Mejia Mendez Mendoza Meyer Miles Miller Mills Mitchell Molina Montgomery
Montoya Moore Morales Moreno Morgan Morris Morrison Moss Mullins Munoz Murphy Murray Myers Nakamura Nash Navarro
Neal Nelson Newman Nguyen Nichols Norman Norris Nunez Obrien Oliver Olson Orozco Ortega Ortiz Osborne Owens Pacheco
Padilla Page Palmer Park Parker Parsons Patel Patterson Patton Payne Pearson Pena Pereira Perez Perkins Perry Peters
Peterson Pham Phillips Pierce Porter Potter Powell Powers Price Quinn Ramirez Ramos Ramsey Ray Reed Reese Reeves
Reid Reyes Reynolds Rhodes Rice Richards Richardson Riley Rios Rivas Rivera Robbins Roberts Robinson Rodgers
Rodriguez Rogers Romero Rosales Ross Rossi Rowe Ruiz Russell Salazar Salinas Sanchez Sanders Sandoval Santiago
Santos Saunders Schmidt Schneider Schultz Schwartz Sharma Sharp Shaw Shelton Silva Simmons Simpson Singh Smith
Snyder Soto Spencer Stanley Steele Stephens Stevens Stewart Stone Sullivan Summers Sutton Swanson Tate Taylor
Thompson Torres Tran Trujillo Tucker Turner Ueda Underwood Valdez Valencia Vargas Vasquez Vaughn Vega Vogel Wagner
Walker Wallace Walsh Walters Walton Ward Warner Warren Watkins Watson Watts Weaver Webb Weber Weiss Welch West
Wheeler White Wilkerson Williams Williamson Willis Wilson Wolfe Wong Wood Woods Wright Yamada Yang Yates Young
Zamora Zhang Zimmer Zimmerman""".split()  # noqa: SIM905

# Where the 555-01xx of an area code lead nowhere: NANPA, 555 Line Numbers, 555-0100 to 555-0199 for fictional use.
_CITIES = """Albany,NY,12207 12210 12208,518;Albuquerque,NM,87102 87106 87110,505;Anchorage,AK,99501 99503 99508,907
Atlanta,GA,30303 30308 30312,404;Augusta,ME,04330,207;Austin,TX,78701 78704 78751,512;Baltimore,MD,21201 21218 21224,410
Baton Rouge,LA,70802 70806,225;Billings,MT,59101 59102,406;Birmingham,AL,35203 35205,205;Bismarck,ND,58501 58503,701
Boise,ID,83702 83705,208;Boston,MA,02108 02116 02130,617;Burlington,VT,05401,802;Charleston,WV,25301 25302,304
Charlotte,NC,28202 28205 28209,704;Cheyenne,WY,82001 82009,307;Chicago,IL,60602 60614 60640,312
Cleveland,OH,44113 44114,216;Columbia,SC,29201 29205,803;Columbus,OH,43215 43201 43206,614;Concord,NH,03301,603
Denver,CO,80202 80205 80210,303;Des Moines,IA,50309 50312,515;Detroit,MI,48226 48201,313;Dover,DE,19901 19904,302
El Paso,TX,79901 79902,915;Fresno,CA,93721 93704,559;Hartford,CT,06103 06106,860;Helena,MT,59601,406
Honolulu,HI,96813 96815 96822,808;Houston,TX,77002 77006 77019,713;Indianapolis,IN,46204 46202,317
Jackson,MS,39201 39202,601;Jacksonville,FL,32202 32204,904;Juneau,AK,99801,907;Kansas City,MO,64105 64108,816
Lansing,MI,48933 48912,517;Las Vegas,NV,89101 89104,702;Lincoln,NE,68508 68502,402;Little Rock,AR,72201 72205,501
Los Angeles,CA,90012 90026 90042,213;Louisville,KY,40202 40204,502;Madison,WI,53703 53704 53711,608
Memphis,TN,38103 38104,901;Miami,FL,33128 33130,305;Milwaukee,WI,53202 53207,414;Minneapolis,MN,55401 55408,612
Nashville,TN,37219 37203 37206,615;New Orleans,LA,70112 70115,504;New York,NY,10002 10025 10031,212
Newark,NJ,07102 07104,973;Oklahoma City,OK,73102 73106,405;Olympia,WA,98501 98502,360;Omaha,NE,68102 68104,402
Philadelphia,PA,19103 19107 19147,215;Phoenix,AZ,85007 85004 85016,602;Pierre,SD,57501,605;Pittsburgh,PA,15222 15217,412
Portland,OR,97204 97209 97214,503;Providence,RI,02903 02906,401;Raleigh,NC,27601 27603 27607,919
Richmond,VA,23219 23220,804;Sacramento,CA,95814 95816 95819,916;Saint Paul,MN,55101 55104,651;Salem,OR,97301 97302,503
Salt Lake City,UT,84101 84103,801;San Antonio,TX,78205 78210,210;San Diego,CA,92101 92103 92104,619
San Francisco,CA,94103 94110 94117,415;Santa Fe,NM,87501 87505,505;Seattle,WA,98101 98103 98122,206
Spokane,WA,99201 99203,509;Springfield,IL,62701 62704,217;Tallahassee,FL,32301 32303,850;Topeka,KS,66603 66604,785
Trenton,NJ,08608 08611,609;Tucson,AZ,85701 85705,520;Tulsa,OK,74103 74104,918;Washington,DC,20001 20009 20011,202
Wichita,KS,67202 67203,316;Worcester,MA,01608 01602,508"""
_TREES = (
    "Alder Ash Aspen Birch Cedar Cherry Dogwood Elm Hawthorn Hickory Juniper Laurel Linden Maple Oak Pine Poplar Willow"
)
_WAYS = "Avenue Boulevard Circle Court Drive Lane Parkway Place Road Square Street Terrace Trail Way"


def _city(row: str) -> City:
    name, state, postal_codes, area = row.split(",")
    return City({"city": name, "state": state}, tuple(postal_codes.split()), NumberRange(f"{area}-555-01", 2))


def national_provider_identifier(number: int) -> dict[str, Any]:
    """An Identifier of 99999, which is not assigned, four digits of `number` and the check digit."""
    digits = f"99999{number % 10_000:04d}"
    return {"system": "http://hl7.org/fhir/sid/us-npi", "value": f"{digits}{luhn('80840' + digits)}"}


UNITED_STATES = Locale(
    code="us",
    country="US",
    us_core=True,
    family=tuple(_FAMILY),
    given={"female": tuple(_FEMALE), "male": tuple(_MALE)},
    second_given=75,
    prefixes={"female": ("Ms.",), "male": ("Mr.",)},
    prefixed_before="2005",
    suffixes={"male": ("Jr.", "Jr.", "II", "III", *[""] * 96)},
    streets=tuple(f"Synthetic {tree} {way}" for tree in _TREES.split() for way in _WAYS.split()),
    line="{house} {street}",
    houses=9_999,
    cities=tuple(_city(row) for row in _CITIES.replace("\n", ";").split(";")),
    provider_identifier=national_provider_identifier,
    places=tuple(
        f"{name} Synthetic Health Center"
        for name in ("Cedar", "Elm", "Harbor", "Juniper", "Lakeside", "Maple", "Prairie", "Summit")
    ),
)
