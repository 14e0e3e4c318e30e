// A picture that is pasted anywhere on the page goes where pictures are dropped.
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
  const input = document.querySelector("#pictures input[type=file]");
  if (files.length === 0 || input === null) return;
  event.preventDefault();
  const pasted = new DataTransfer();
  files.forEach((file) => pasted.items.add(file));
  input.files = pasted.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
