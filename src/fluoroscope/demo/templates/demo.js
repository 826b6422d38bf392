"use strict"
// One film at a time goes to this page's own server, without its name. Nothing is stored here.
const drop = document.getElementById("drop")
const input = document.getElementById("file")
const choice = document.getElementById("label")
const state = document.getElementById("state")
const shown = document.getElementById("shown")
const MAX_MIB = Number(drop.dataset.maxMib)
let film = null
let sending = false

async function show() {
  if (film === null || sending) return
  sending = true
  document.body.setAttribute("aria-busy", "true")
  say("Reading the film …")
  try {
    const query = choice.value ? "?label=" + encodeURIComponent(choice.value) : ""
    const headers = { "Content-Type": "application/octet-stream" }
    const answer = await fetch("/film" + query, { method: "POST", headers, body: film })
    const text = await answer.text()
    if (answer.ok) {
      shown.innerHTML = text
      say("The film was read.")
      document.getElementById("result").focus()
    } else {
      fail(text)
    }
  } catch (error) {
    fail("the page's server does not answer; is it still running?")
  }
  sending = false
  document.body.removeAttribute("aria-busy")
}

function say(text) {
  state.className = "note"
  state.textContent = text
}

function fail(text) {
  shown.replaceChildren()
  say("Error: " + text + ".")
  state.className = "error"
}

function take(files) {
  if (files.length === 0) return
  if (files.length > 1) return fail("give one film at a time")
  if (files[0].size > MAX_MIB * 2 ** 20) return fail(`the film is larger than ${MAX_MIB} MiB`)
  film = files[0]
  show()
}

input.addEventListener("change", () => { take(input.files); input.value = "" })
choice.addEventListener("change", show)
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, event => event.preventDefault())
}
drop.addEventListener("dragover", () => drop.classList.add("over"))
drop.addEventListener("dragleave", () => drop.classList.remove("over"))
drop.addEventListener("drop", event => {
  drop.classList.remove("over")
  take(event.dataTransfer.files)
})
