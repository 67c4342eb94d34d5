"""People and places of the United Kingdom."""

from __future__ import annotations

from ehrsim.fhir.locales.check_digits import modulus_11
from ehrsim.fhir.locales.locale import City, Locale, NationalNumber, NumberRange

_FEMALE = """Abigail Ada Agnes Aisha Alexandra Alice Alison Amanda Amara Amber Amelia Amina Amy Anastasia Andrea
Angela Anita Ann Anna Annabel Anne Annie Anwen Aoife April Ariana Audrey Ava Beatrice Bella Beth Bethan Bethany
Beverley Brenda Bridget Bronwen Callie Carla Carol Caroline Carys Catherine Catriona Ceri Charlotte Chloe Christine
Ciara Claire Clara Colette Constance Daisy Darcey Dawn Deborah Deirdre Delyth Denise Diana Donna Doreen Doris
Dorothy Edith Eileen Eilidh Eira Elaine Eleanor Elin Elizabeth Ella Ellen Ellie Eloise Elsie Emily Emma Erin Esme
Esther Eve Evelyn Evie Faith Farah Fatima Felicity Ffion Fiona Flora Florence Frances Freya Gail Gaynor Gemma
Georgia Gillian Grace Gwen Hafsa Hannah Harriet Hayley Hazel Heather Heidi Helen Hilary Holly Imogen India Iona
Irene Iris Isabel Isla Ivy Jacqueline Jane Janet Janice Jasmine Jean Jemima Jennifer Jessica Joan Joanna Josephine
Joyce Judith Julia Julie Karen Kate Katherine Katie Kayleigh Keira Kelly Khadija Kirsty Lara Laura Lauren Layla Leah
Lesley Lily Linda Lindsay Lorna Lorraine Louise Lucy Lydia Mabel Maeve Mairi Maisie Margaret Maria Marion Martha
Mary Maryam Matilda Maureen Megan Melanie Mhairi Millie Miriam Molly Morag Myfanwy Nadia Naomi Natalie Nerys Nia
Niamh Nicola Nora Olive Olivia Orla Pamela Patricia Paula Pauline Penelope Phoebe Pippa Poppy Priya Rachel Rebecca
Rhiannon Rhona Rosalind Rose Rosemary Rosie Rowena Ruby Ruth Sally Samantha Sandra Sara Sarah Sharon Sheila Shirley
Sian Sinead Sophie Stella Stephanie Susan Tamsin Tara Tegan Thea Theresa Tina Tracey Una Valerie Vera Victoria
Violet Wendy Willow Winifred Yasmin Yvonne Zara Zoe""".split()  # noqa: SIM905
_MALE = """Aaron Abdul Adam Adrian Ahmed Aidan Alan Alasdair Albert Alec Alexander Alfie Alistair Allan Andrew Angus
Anthony Archie Arjun Arthur Barry Benedict Benjamin Bernard Bilal Blair Bradley Brandon Brendan Brian Bruce Bryn
Caleb Callum Cameron Carl Charles Christian Christopher Ciaran Clive Colin Conor Craig Cyril Daniel Darren David
Dean Declan Denis Derek Dermot Desmond Dewi Dominic Donald Douglas Duncan Dylan Edgar Edmund Edward Edwin Elis
Elliot Emyr Eoin Eric Ernest Euan Evan Ewan Felix Fergus Finlay Francis Frank Fraser Freddie Frederick Gareth Gary
Gavin Geoffrey George Geraint Gerald Gethin Gilbert Glen Glyn Gordon Graham Gregory Guy Hamish Harish Harold
Harrison Harry Hassan Hector Henry Herbert Howard Hugh Hugo Huw Hywel Iain Ian Ibrahim Idris Imran Isaac Ivan Ivor
Iwan Jack Jacob Jake James Jamie Jason Jasper Jeremy John Jonathan Joseph Joshua Julian Justin Kamal Karl Keith
Kenneth Kevin Kieran Kyle Lachlan Lawrence Lee Leo Leonard Leslie Lewis Liam Lionel Llewelyn Lloyd Logan Louis Luca
Lucas Luke Magnus Malcolm Marcus Mark Martin Mason Matthew Maurice Max Michael Mohammed Morgan Muhammad Murdo Nathan
Neil Nicholas Nigel Noah Norman Oliver Omar Oscar Osian Owen Patrick Paul Percy Peter Philip Ralph Raymond Reginald
Rhodri Rhys Richard Robert Robin Rodney Roger Rohan Ronald Rory Ross Roy Rupert Russell Ryan Samuel Scott Sean
Sebastian Simon Stanley Stephen Stewart Stuart Tariq Terence Theo Thomas Timothy Toby Tomos Tony Trevor Tristan
Vernon Victor Vikram Vincent Walter Wayne Wilfred William Yusuf Zachary""".split()  # noqa: SIM905
_FAMILY = """Abbott Adams Ahmed Akhtar Alexander Ali Allan Allen Anderson Andrews Archer Armstrong Arnold Ashton
Aspinall Atkins Atkinson Austin Bailey Baker Baldwin Ball Banks Barber Barker Barlow Barnes Barnett Barrett Barry
Bartlett Barton Bates Baxter Beattie Begum Bell Bennett Benson Bentley Berry Bird Bishop Black Blackburn Blake
Bolton Bond Booth Bowen Boyd Boyle Bradley Bradshaw Brady Bray Brennan Briggs Brookes Brooks Brown Browne Bruce
Bryan Bryant Buckley Bull Burgess Burke Burns Burrows Burton Butcher Butler Byrne Callaghan Cameron Campbell Carey
Carpenter Carr Carroll Carter Chadwick Chambers Chan Chapman Charlton Chowdhury Clark Clarke Clayton Clements Coates
Cole Coleman Coles Collier Collins Connolly Connor Conway Cook Cooke Cooper Cox Craig Crawford Cross Cunningham
Curtis Dale Daniels Davey Davidson Davies Davis Davison Dawson Day Dean Dennis Dhillon Dickinson Dixon Dobson
Doherty Donnelly Douglas Doyle Duffy Duncan Dunn Dyer Edwards Elliott Ellis Evans Farrell Faulkner Ferguson Field
Finch Fisher Fitzgerald Fleming Fletcher Flynn Ford Forster Foster Fowler Fox Francis Franklin Fraser Freeman French
Frost Fuller Gallagher Gardiner Gardner Garner George Gibbons Gibbs Gibson Gilbert Giles Gill Glover Goddard Godfrey
Goodwin Gordon Gough Gould Graham Grant Gray Green Greenwood Gregory Griffin Griffiths Haines Hall Hamilton Hammond
Hancock Hanson Harding Hardy Harper Harris Harrison Hart Hartley Harvey Hawkins Hayes Haynes Hayward Heath Henderson
Henry Herbert Hewitt Hicks Higgins Hill Hilton Hobbs Hodgson Holden Holland Holloway Holmes Holt Hooper Hope Hopkins
Horton Houghton Howard Howarth Howe Howell Howells Hudson Hughes Humphreys Hunt Hunter Hurst Hussain Hutchinson
Ingram Iqbal Irving Jackson Jacobs James Jarvis Jenkins Jennings John Johnson Johnston Johnstone Jones Jordan Joyce
Kaur Kavanagh Kay Keane Kelly Kemp Kennedy Kent Kerr Khan King Kirby Kirk Knight Knowles Lamb Lambert Lane Law
Lawrence Lawson Leach Lee Leonard Lewis Little Lloyd Long Lord Lowe Lucas Lynch Lyons MacDonald Mackay Mackenzie
Maclean Mahmood Malik Mann Manning Marsden Marsh Marshall Martin Mason Matthews May McCarthy McDonald McKenzie
McLean Mellor Metcalfe Middleton Miles Millar Miller Mills Milne Mitchell Moore Moran Morgan Morley Morris Morrison
Morton Moss Muir Murphy Murray Nash Naylor Nelson Newman Newton Nicholls Nicholson Nixon Noble Nolan Norman Norris
North Norton Obrien Oconnor Oliver Oneill Osborne Owen Owens Page Palmer Parker Parkin Parry Parsons Patel Paterson
Patterson Payne Peacock Pearce Pearson Perkins Perry Peters Phillips Pickering Pollard Poole Potter Powell Power
Pratt Preston Price Pritchard Pugh Quinn Rahman Randall Read Rees Reeves Reid Reynolds Rhodes Rice Richards
Richardson Riley Roberts Robertson Robinson Robson Rogers Rose Ross Rowe Rowley Russell Ryan Sanders Sanderson
Saunders Savage Schofield Scott Shah Sharma Sharp Sharpe Shaw Shepherd Short Simmons Simpson Sims Sinclair Singh
Skinner Slater Smart Smith Spencer Stanley Steele Stephens Stephenson Stevens Stevenson Stewart Stone Storey
Sullivan Summers Sutherland Sutton Swift Sykes Talbot Taylor Thomas Thompson Thomson Thornton Thorpe Todd Tomlinson
Townsend Tucker Turnbull Turner Tyler Vaughan Vincent Wade Walker Wallace Wallis Walsh Walters Walton Ward Warner
Warren Waters Watkins Watson Watts Webb Webster Welch Wells West Weston Wheeler White Whitehead Whittaker Wilkins
Wilkinson Williams Williamson Willis Wilson Winter Wong Wood Woods Woodward Wright Wyatt Yates Young""".split()  # noqa: SIM905

# Numbers for drama: Ofcom, "Telephone numbers for use in TV and radio drama programmes"; a thousand an area.
_CITIES = """Aberdeen|Aberdeen City|Scotland|AB10 AB11 AB24|01632 960
Belfast|County Antrim|Northern Ireland|BT1 BT7 BT15|028 9649 6
Birmingham|West Midlands|England|B1 B14 B29|0121 496 0
Bradford|West Yorkshire|England|BD1 BD5 BD9|01632 960
Brighton|East Sussex|England|BN1 BN2|01632 960
Bristol|Bristol|England|BS1 BS6 BS16|0117 496 0
Cambridge|Cambridgeshire|England|CB1 CB4|01632 960
Cardiff|South Glamorgan|Wales|CF10 CF14 CF24|029 2018 0
Coventry|West Midlands|England|CV1 CV5|01632 960
Derby|Derbyshire|England|DE1 DE22|01632 960
Dundee|Dundee City|Scotland|DD1 DD4|01632 960
Edinburgh|City of Edinburgh|Scotland|EH1 EH9 EH16|0131 496 0
Exeter|Devon|England|EX1 EX4|01632 960
Glasgow|Glasgow City|Scotland|G1 G12 G41|0141 496 0
Inverness|Highland|Scotland|IV2 IV3|01632 960
Kingston upon Hull|East Riding of Yorkshire|England|HU1 HU5|01632 960
Leeds|West Yorkshire|England|LS1 LS6 LS17|0113 496 0
Leicester|Leicestershire|England|LE1 LE3|0116 496 0
Lisburn|County Antrim|Northern Ireland|BT27 BT28|028 9649 6
Liverpool|Merseyside|England|L1 L8 L18|0151 496 0
London|Greater London|England|E8 N16 SE15 SW9 W12|020 7946 0
Manchester|Greater Manchester|England|M1 M14 M20|0161 496 0
Newcastle upon Tyne|Tyne and Wear|England|NE1 NE4 NE6|0191 498 0
Norwich|Norfolk|England|NR1 NR3|01632 960
Nottingham|Nottinghamshire|England|NG1 NG7|0115 496 0
Oxford|Oxfordshire|England|OX1 OX4|01632 960
Plymouth|Devon|England|PL1 PL4|01632 960
Portsmouth|Hampshire|England|PO1 PO4|01632 960
Reading|Berkshire|England|RG1 RG6|0118 496 0
Salford|Greater Manchester|England|M5 M6|0161 496 0
Sheffield|South Yorkshire|England|S1 S7 S11|0114 496 0
Southampton|Hampshire|England|SO14 SO17|01632 960
Sunderland|Tyne and Wear|England|SR1 SR4|0191 498 0
Swansea|West Glamorgan|Wales|SA1 SA2|01632 960
Wrexham|Clwyd|Wales|LL11 LL13|01632 960
York|North Yorkshire|England|YO1 YO24|01632 960"""
_INWARD = ("0ZZ", "1ZZ", "2ZZ", "3ZZ", "4ZZ", "5ZZ", "6ZZ", "7ZZ", "8ZZ", "9ZZ")
"""Second halves of postcodes, of the right shape; the areas are real, the halves are plain to see as invented."""
_WORDS = "Alder Ash Beech Birch Chapel Church Elm Heather Holly Kiln Laurel Mill Oak Orchard Rowan Station Willow"
_WAYS = "Avenue Close Crescent Drive Gardens Grove Lane Place Road Row Street Terrace Walk Way"


def _city(row: str) -> City:
    name, county, country, areas, telephone = row.split("|")
    postcodes = tuple(f"{area} {inward}" for area in areas.split() for inward in _INWARD)
    return City({"city": name, "district": county, "state": country}, postcodes, NumberRange(telephone, 3))


def nhs_number(position: int) -> str:
    """An NHS number between 999 000 0000 and 999 999 9999, which are for tests and never issued (NHS England).

    Of the ten numbers that share all digits before the last two, one at most has no check digit: it is passed over.
    """
    shared, last = divmod(position, 9)
    without = (modulus_11(f"999{shared:05d}0") - 10) * 6 % 11  # where 10 = check - 2 * last, modulo 11; 6 = 1 / 2
    digits = f"999{shared:05d}{last + (last >= without)}"
    return f"{digits}{modulus_11(digits)}"


UNITED_KINGDOM = Locale(
    code="gb",
    country="GB",
    language="en-GB",
    family=tuple(_FAMILY),
    given={"female": tuple(_FEMALE), "male": tuple(_MALE)},
    second_given=70,
    prefixes={"female": ("Miss", "Mrs", "Ms"), "male": ("Mr",), "other": ("Mx",)},
    prefixed_before="2005",
    streets=tuple(f"Synthetic {word} {way}" for word in _WORDS.split() for way in _WAYS.split()),
    line="{house} {street}",
    houses=250,
    cities=tuple(_city(row) for row in _CITIES.splitlines()),
    mobiles=(NumberRange("07700 900", 3),),
    national_number=NationalNumber(
        system="https://fhir.nhs.uk/Id/nhs-number",
        type={
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/v2-0203",
                    "code": "NH",
                    "display": "National Health Plan Identifier",
                }
            ],
            "text": "NHS number",
        },
        size=900_000,
        value=nhs_number,
    ),
    places=tuple(
        f"{name} Synthetic Health Centre"
        for name in ("Ashdown", "Beacon", "Harbour", "Heathside", "Millbrook", "Riverside", "Rowan", "Westgate")
    ),
)
