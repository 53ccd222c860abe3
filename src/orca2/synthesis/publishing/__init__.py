"""What lies beside the shards of a data set, for people.

browser.py     `browser.html`: records with the teacher's and the student's prompt side by side
data_card.py   `README.md`: where the rows come from, how they were made and checked, and what they cost
upload.py      the folder as a data set on the Hugging Face hub, where asked for
"""
