// The order of the site's search results: titles with the words of the query first, tables in which things are looked up last.
const REFERENCE = /^(index|command-line|measured|modules|settings|contributing\/.*)$/;

var Scorer = {
  objNameMatch: 11, objPartialMatch: 6, objPrio: {}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
  score([page, title, , , score]) {
    const stemmer = new Stemmer();
    const words = (text) => splitQuery(text.toLowerCase()).filter((word) => !stopwords.has(word)).map((word) => stemmer.stemWord(word));
    const asked = new Set(words(new URLSearchParams(window.location.search).get("q") ?? ""));
    return score + 5 * words(title).filter((word) => asked.has(word)).length - (REFERENCE.test(page) ? 15 : 0);
  },
};
