// Reads header sections as programs in Go do, with net/mail.
//
// A section a line, in hexadecimal; for each a line of the addresses found in From, in hexadecimal.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"mime"
	"net/mail"
	"os"
	"strings"
)

func addresses(value string) []string {
	var found []string
	if list, err := mail.ParseAddressList(value); err == nil {
		for _, item := range list {
			found = append(found, item.Address)
		}
	}
	if one, err := mail.ParseAddress(value); err == nil {
		found = append(found, one.Address)
	}
	return found
}

func read(section []byte) []string {
	message, err := mail.ReadMessage(bytes.NewReader(append(section, '\n')))
	if err != nil {
		return nil
	}
	var found []string
	decoder := new(mime.WordDecoder)
	for _, value := range message.Header["From"] {
		found = append(found, addresses(value)...)
		if decoded, err := decoder.DecodeHeader(value); err == nil {
			found = append(found, addresses(decoded)...)
		}
	}
	return found
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		section, err := hex.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		fmt.Println(hex.EncodeToString([]byte(strings.Join(read(section), "\n"))))
	}
}
