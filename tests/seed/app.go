// Counts the links of the page at $url: those within its site and those that lead elsewhere.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	"golang.org/x/net/html"
)

type counts struct {
	Internal int `json:"internal"`
	External int `json:"external"`
}

func main() {
	page, err := http.Get(os.Getenv("url"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer page.Body.Close()
	var found counts
	tokens := html.NewTokenizer(page.Body)
	for tokens.Next() != html.ErrorToken {
		token := tokens.Token()
		if token.Type != html.StartTagToken || token.Data != "a" {
			continue
		}
		for _, attribute := range token.Attr {
			if attribute.Key != "href" {
				continue
			}
			if strings.HasPrefix(attribute.Val, "http") {
				found.External++
			} else {
				found.Internal++
			}
		}
	}
	line, _ := json.Marshal(found)
	fmt.Println(string(line))
}
